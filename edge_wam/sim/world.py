"""One Meta-World episode behind four axes: setpoints in at the physics rate, positions, pictures and the verdict out.

The MCU's setpoints replace Meta-World's own action step: x, y, z drive the mocap body (metres), the gripper axis
(-1 open .. +1 closed) drives the two finger actuators. Everything else (physics, randomisation, success) is untouched.
Cameras follow LeRobot's Meta-World protocol (``corner2`` moved to (0.75, 0.075, 0.7), image turned by 180 degrees),
plus ``topview`` because one small view cannot tell the depth of a 2 cm goal to the 5 cm that success asks for.
Rendering is the fast style: no shadows, reflections or multisampling; training and evaluation use the same style.
"""

from __future__ import annotations

import atexit
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_wam.contracts import F64, U8
from edge_wam.errors import ConfigError, nearest
from edge_wam.sim.mujoco_loader import cannot_load, load_mujoco

PHYSICS_STEP_NS = 2_500_000
"""MuJoCo's time step in Meta-World's Sawyer scenes (2.5 ms)."""
REFEREE_EVERY = 5
"""Meta-World's frame_skip: success is judged every 12.5 ms, as in the published protocol (80 Hz)."""
MAX_EPISODE_NS = 500 * REFEREE_EVERY * PHYSICS_STEP_NS
"""500 environment steps of the published protocol = 6.25 s."""
IMAGE_SIZE = 128
TRAIN_SEED_LIMIT = 100_000
"""Seeds below this are for training; evaluation uses seeds from here on. The two never meet."""


@dataclass(frozen=True, slots=True)
class Task:
    """A Meta-World task in words.

    Attributes:
        environment, policy: Meta-World's names of the scene and of its scripted expert.
        paraphrases: other ways an operator says the instruction.
        group: difficulty as the published tables sort it: easy, medium, hard, very hard.
    """

    name: str
    environment: str
    policy: str
    instruction: str
    paraphrases: tuple[str, ...]
    group: str = "easy"


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("reach", "reach-v3", "SawyerReachV3Policy", "reach the goal position",
             ("move to the red goal", "go to the target point", "reach the target")),
        Task("drawer-open", "drawer-open-v3", "SawyerDrawerOpenV3Policy", "open the drawer",
             ("pull the drawer open", "pull out the drawer", "open that drawer please")),
        Task("drawer-close", "drawer-close-v3", "SawyerDrawerCloseV3Policy", "close the drawer",
             ("push the drawer shut", "push in the drawer", "shut the drawer")),
        Task("button-press-topdown", "button-press-topdown-v3", "SawyerButtonPressTopdownV3Policy",
             "press the button from the top", ("push the button down", "press down the button", "press the button")),
        Task("window-open", "window-open-v3", "SawyerWindowOpenV3Policy", "open the window",
             ("slide the window open", "push the window open", "open that window please")),
        Task("door-close", "door-close-v3", "SawyerDoorCloseV3Policy", "close the door",
             ("push the door shut", "shut the door", "close that door please")),
        Task("reach-wall", "reach-wall-v3", "SawyerReachWallV3Policy", "go around the wall and reach the goal",
             ("reach the goal behind the wall", "bypass the wall and reach the goal")),
        Task("plate-slide", "plate-slide-v3", "SawyerPlateSlideV3Policy", "slide the plate into the cabinet",
             ("push the plate into the cabinet", "put the plate in the cabinet")),
        Task("coffee-push", "coffee-push-v3", "SawyerCoffeePushV3Policy", "push the mug under the coffee machine",
             ("put the mug under the coffee machine", "slide the mug to the machine"), "medium"),
        Task("sweep", "sweep-v3", "SawyerSweepV3Policy", "sweep the puck off the table",
             ("push the puck off the table", "sweep the puck away"), "medium"),
        Task("push-wall", "push-wall-v3", "SawyerPushWallV3Policy", "push the puck around the wall to the goal",
             ("bypass the wall and push the puck", "move the puck around the wall"), "medium"),
        Task("push", "push-v3", "SawyerPushV3Policy", "push the puck to the goal",
             ("slide the puck to the goal", "move the puck to the target"), "hard"),
        Task("pick-place", "pick-place-v3", "SawyerPickPlaceV3Policy", "pick up the puck and bring it to the goal",
             ("lift the puck to the goal", "pick and place the puck"), "hard"),
        Task("hand-insert", "hand-insert-v3", "SawyerHandInsertV3Policy", "insert the gripper into the hole",
             ("put the gripper into the hole", "move the hand into the hole"), "hard"),
        Task("stick-push", "stick-push-v3", "SawyerStickPushV3Policy", "push the box with the stick",
             ("grasp the stick and push the box", "use the stick to push the box"), "very hard"),
        Task("pick-place-wall", "pick-place-wall-v3", "SawyerPickPlaceWallV3Policy",
             "pick up the puck and place it behind the wall",
             ("lift the puck over the wall", "bring the puck behind the wall"), "very hard"),
    )
}  # fmt: skip
SHIPPED_TASKS = ("reach", "drawer-open", "drawer-close", "button-press-topdown", "window-open", "door-close")
"""What the bundle in this repository has learnt."""


def task_named(name: str) -> Task:
    """Look a task up; raises ConfigError naming the nearest."""
    if name not in TASKS:
        raise ConfigError(f"unknown task {name!r}{nearest(name, TASKS)}", expected=", ".join(TASKS))
    return TASKS[name]


def _environments() -> dict[str, Any]:
    """Meta-World's environments.

    Raises:
        ConfigError: the simulator is not installed, or there is no EGL.
    """
    load_mujoco()
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS  # heavy: all of its models
    except ImportError as error:
        raise cannot_load(error) from error
    environments: dict[str, Any] = ALL_V3_ENVIRONMENTS
    return environments


def _close_if_alive(renderer: weakref.ref[Any]) -> None:
    if (alive := renderer()) is not None:
        alive.close()


class World:
    """One task, one seed, one episode. Deterministic: the same seed and setpoints give the same states."""

    def __init__(self, task: str, seed: int) -> None:
        self.task = task_named(task)
        self.seed = seed
        env: Any = _environments()[self.task.environment]()
        env._freeze_rand_vec = False
        env._set_task_called = True
        env.seeded_rand_vec = True
        env._partially_observable = False  # as in MT1: the goal is part of the experts' observation
        env.__dict__.pop("sawyer_observation_space", None)  # cached with the goal's bounds at zero
        self._env = env
        self._renderer: Any = None
        env.model.cam_pos[env.model.camera("corner2").id] = (0.75, 0.075, 0.7)
        env.model.vis.quality.offsamples = 0
        env.model.vis.quality.shadowsize = 0
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Start the episode of ``seed``: objects and goal drawn by Meta-World's own randomisation."""
        import mujoco

        self.seed = seed
        self._env.seed(seed)
        self._obs, _ = self._env.reset()
        mujoco.mj_forward(self._env.model, self._env.data)
        self.steps = 0
        self.succeeded = False

    @property
    def instruction(self) -> str:
        return self.task.instruction

    @property
    def time_ns(self) -> int:
        """Simulated time since the reset."""
        return self.steps * PHYSICS_STEP_NS

    @property
    def full_observation(self) -> F64:
        """Meta-World's own 39 numbers: what the scripted experts (and nobody else) may see."""
        return np.array(self._obs, dtype=np.float64)

    @property
    def env(self) -> Any:
        """The Meta-World environment itself, for the experts' labels."""
        return self._env

    def position(self) -> F64:
        """Measured axes [4]: the hand (m) and the gripper opening mapped to -1 open .. +1 closed."""
        hand = self._env.get_endeff_pos()
        fingers = self._env.data.body("rightclaw").xpos - self._env.data.body("leftclaw").xpos
        opening = float(np.clip(np.linalg.norm(fingers) / 0.1, 0.0, 1.0))  # 0.1 m: Meta-World's own scale
        return np.array([*hand, 1.0 - 2.0 * opening])

    def setpoint(self) -> F64:
        """What drives the axes now [4]: mocap position (m) and finger command."""
        return np.array([*self._env.data.mocap_pos[0], self._env.data.ctrl[0]])

    def step_setpoint(self, setpoint: F64) -> None:
        """Advance the physics by one 2.5 ms step under this setpoint [4]; judge success when it is the referee's turn.

        The fingers' actuators take only what lies in [-1, 1]; the mocap box of Meta-World is not applied here: the
        limits are the microcontroller's business, and a test drives through it to show that they hold.
        """
        import mujoco

        env = self._env
        env.data.mocap_pos[0] = setpoint[:3]
        env.data.mocap_quat[0] = (1, 0, 1, 0)
        grip = min(1.0, max(-1.0, float(setpoint[3])))
        env.data.ctrl[:2] = (grip, -grip)
        mujoco.mj_step(env.model, env.data)
        self.steps += 1
        if self.steps % REFEREE_EVERY == 0:
            self._referee()

    def _referee(self) -> None:
        import mujoco

        env = self._env
        for site in env._target_site_config:
            env._set_pos_site(*site)
        mujoco.mj_forward(env.model, env.data)
        self._obs = self._look()
        _, info = env.evaluate_state(self._obs, np.zeros(4, np.float32))
        self.succeeded = self.succeeded or bool(info["success"])

    def _look(self) -> F64:
        space = self._env.sawyer_observation_space
        return np.asarray(np.clip(self._env._get_obs(), space.low, space.high), np.float64)

    def render(self, camera: str) -> U8:
        """uint8 RGB [128, 128, 3] of one of the scene's cameras; ``corner2`` turned by 180 degrees, as LeRobot does."""
        import mujoco

        if self._renderer is None:
            renderer = mujoco.Renderer(self._env.model, IMAGE_SIZE, IMAGE_SIZE)
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                renderer.scene.flags[flag] = 0
            # Registered after MuJoCo's own eglTerminate, so run before it: a context freed later is an error at exit.
            atexit.register(_close_if_alive, weakref.ref(renderer))
            self._renderer = renderer
        self._renderer.update_scene(self._env.data, camera=camera)
        image: U8 = self._renderer.render()
        if camera == "corner2":
            image = image[::-1, ::-1]
        return np.ascontiguousarray(image)

    def dynamic_state(self) -> F64:
        """What a second process needs to draw the same picture: qpos, qvel, mocap pose."""
        data = self._env.data
        return np.concatenate([data.qpos, data.qvel, data.mocap_pos.ravel(), data.mocap_quat.ravel()])

    def set_dynamic_state(self, state: F64) -> None:
        """Take over a state from :meth:`dynamic_state` of a world with the same task and seed."""
        import mujoco

        data = self._env.data
        sizes = np.cumsum([data.qpos.size, data.qvel.size, data.mocap_pos.size])
        qpos, qvel, mocap_pos, mocap_quat = np.split(state, sizes)
        data.qpos[:], data.qvel[:] = qpos, qvel
        data.mocap_pos[:] = mocap_pos.reshape(data.mocap_pos.shape)
        data.mocap_quat[:] = mocap_quat.reshape(data.mocap_quat.shape)
        mujoco.mj_forward(self._env.model, data)
        self._obs = self._look()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
