"""A 6-axis arm of the 1 m, 5 kg class as MuJoCo XML, built from primitives: masses, rotor inertias, friction, play.

The numbers are those of the class, not of one make: 0.85 m from shoulder to flange, 22 kg moving mass, harmonic drives
of 1:100 whose rotors weigh as much at the joint as a link does, and friction of a tenth of the rated torque.
"""

from __future__ import annotations

from dataclasses import dataclass

DOF = 6
JOINT_NAMES = ("base", "shoulder", "elbow", "wrist_1", "wrist_2", "wrist_3")
GRAVITY = 9.81
"""m/s^2"""
PHYSICS_STEP_S = 0.5e-3
"""Two steps per control tick: the play's end stops need a time constant of two steps, and 1 ms is the drive's."""


@dataclass(frozen=True, slots=True)
class Link:
    """One moving body, drawn as a capsule from its joint to the next.

    Attributes:
        offset_m: of the joint in the frame of the link before.
        axis: of rotation.
        reach_m: capsule from the joint to here; also where the next link begins unless it says otherwise.
        radius_m, mass_kg: of the capsule; its inertia follows from both.
        rotor_kgm2: rotor inertia seen at the joint (motor x ratio^2).
        coulomb_nm, viscous_nms: friction of gear and bearings.
        torque_nm: of the drive at the joint, peak.
        stop_rad: hard end stop, +-.
        brake_nm: of the holding brake.
    """

    offset_m: tuple[float, float, float]
    axis: tuple[int, int, int]
    reach_m: tuple[float, float, float]
    radius_m: float
    mass_kg: float
    rotor_kgm2: float
    coulomb_nm: float
    viscous_nms: float
    torque_nm: float
    stop_rad: float
    brake_nm: float


LINKS: tuple[Link, ...] = (
    Link((0, 0, 0.10), (0, 0, 1), (0, 0, 0.08), 0.075, 4.0, 0.80, 6.0, 8.0, 150.0, 6.20, 220.0),
    Link((0, 0, 0.08), (0, 1, 0), (0, 0, 0.425), 0.060, 8.0, 0.80, 6.0, 8.0, 150.0, 3.00, 220.0),
    Link((0, 0, 0.425), (0, 1, 0), (0, 0, 0.390), 0.048, 5.0, 0.55, 4.5, 6.0, 150.0, 3.00, 220.0),
    Link((0, 0, 0.390), (0, 1, 0), (0, 0, 0.095), 0.040, 2.0, 0.15, 1.2, 1.5, 28.0, 6.20, 40.0),
    Link((0, 0, 0.095), (0, 0, 1), (0, 0.09, 0), 0.040, 2.0, 0.15, 1.2, 1.5, 28.0, 6.20, 40.0),
    Link((0, 0.09, 0), (0, 1, 0), (0, 0.05, 0), 0.035, 0.8, 0.10, 1.0, 1.0, 28.0, 6.20, 40.0),
)
HOME = (0.0, -0.6, 1.4, 0.7, 0.0, 0.0)
"""A working pose, radians: elbow up, tool ahead and above the table."""


def _vector(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def arm_xml(
    *, payload_kg: float = 0.0, payload_m: float = 0.10, backlash_rad: float = 0.0, friction: float = 1.0
) -> str:
    """The MuJoCo model. Zero pose: the arm stretched straight up.

    Args:
        payload_kg: a ball fixed ``payload_m`` beyond the flange.
        backlash_rad: play of every gear, end to end. The motor turns joint ``NAME``; what is behind the gear turns with
            ``NAME_play`` more.
        friction: scales Coulomb and viscous friction.
    """
    lines = [
        '<mujoco model="arm6">',
        '<compiler angle="radian" autolimits="true"/>',
        f'<option timestep="{PHYSICS_STEP_S:g}" gravity="0 0 -{GRAVITY:g}" integrator="implicitfast" cone="elliptic"/>',
        '<visual><global offwidth="960" offheight="720"/><quality offsamples="0" shadowsize="0"/></visual>',
        # Links meet the floor only: neighbours overlap at their joints.
        '<default><geom contype="1" conaffinity="2" friction="0.6"/></default>',
        "<worldbody>",
        '<light pos="0 -1 3" dir="0 0.3 -1" diffuse="0.8 0.8 0.8"/>',
        '<geom name="floor" type="plane" size="2 2 0.1" contype="2" conaffinity="1" rgba="0.85 0.87 0.9 1"/>',
        '<geom name="foot" type="cylinder" pos="0 0 0.05" size="0.09 0.05" contype="0" conaffinity="0" '
        'rgba="0.3 0.32 0.35 1"/>',
    ]
    for index, (name, link) in enumerate(zip(JOINT_NAMES, LINKS, strict=True)):
        axis = _vector(link.axis)
        lines += [
            f'<body name="{name}" pos="{_vector(link.offset_m)}">',
            f'<joint name="{name}" type="hinge" axis="{axis}" range="{-link.stop_rad:g} {link.stop_rad:g}" '
            f'armature="{link.rotor_kgm2:g}" frictionloss="{link.coulomb_nm * friction:g}" '
            # Dry friction that hardly creeps: with MuJoCo's own values a loaded brake slides 0.1 rad in two seconds.
            f'solimpfriction="0.999 0.9999 0.001" '
            f'damping="{link.viscous_nms * friction:g}"/>',
        ]
        if backlash_rad > 0.0:
            # Same axis, in series: the teeth lie loose between two stiff stops. A little inertia and damping of its own
            # (the output gear and its grease) keep the mass matrix well conditioned.
            lines.append(
                f'<joint name="{name}_play" type="hinge" axis="{axis}" range="{-backlash_rad / 2:g} '
                f'{backlash_rad / 2:g}" armature="0.005" damping="0.05" solreflimit="0.001 1" '
                f'solimplimit="0.95 0.99 0.0001"/>'
            )
        colour = "0.95 0.55 0.15 1" if index % 2 else "0.25 0.45 0.7 1"
        lines.append(
            f'<geom type="capsule" fromto="0 0 0 {_vector(link.reach_m)}" size="{link.radius_m:g}" '
            f'mass="{link.mass_kg:g}" rgba="{colour}"/>'
        )
    if payload_kg > 0.0:
        lines.append(
            f'<geom name="payload" type="sphere" pos="0 {LINKS[-1].reach_m[1] + payload_m:g} 0" size="0.05" '
            f'mass="{payload_kg:g}" rgba="0.5 0.2 0.6 1"/>'
        )
    lines.append('<site name="flange" pos="0 0.05 0" size="0.01"/>')
    lines += ["</body>"] * DOF
    lines += [
        '<camera name="side" pos="1.6 -1.6 1.0" xyaxes="0.7 0.7 0 -0.3 0.3 0.9"/>',
        "</worldbody>",
        "<actuator>",
        *(
            f'<motor name="{name}" joint="{name}" ctrlrange="{-link.torque_nm:g} {link.torque_nm:g}"/>'
            for name, link in zip(JOINT_NAMES, LINKS, strict=True)
        ),
        "</actuator>",
        "</mujoco>",
    ]
    return "\n".join(lines)
