"""The robot that nobody here wrote: Meta-World's Sawyer (Farama, MuJoCo) as plant, cameras and referee."""
