"""What runs in the datacentre: data, students, training, quantisation, export. Never imported by the robot."""
