"""A student in PyTorch that plans for the simulator as a bundle would: the runtime's pixels, memory and noise.

With it a teacher of many passes, a student of two and the bundle made of it are compared in one closed loop, episode by
episode, on the same noise.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from distill.export import model_sizes
from distill.models.codec import FrameCodec
from distill.models.wam import WorldActionTransformer
from edge_wam.contracts import F32, F64, ActionChunk, Imagination, Observation
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError
from edge_wam.history import FrameHistory, context_buffers
from edge_wam.kernels import camera_to_canvas, decode_chunk
from edge_wam.policy import Latents
from edge_wam.text import encode_text


class TorchPlanner:
    """See the module's text. Not for a robot: nothing is checked that the runtime checks.

    Args:
        passes: K; the chunk is brought from noise level 1 to 0 in K equal jumps, video and actions together.
        noise_seed: of the bundle that it is compared with; the noise then is the same, call by call.

    Attributes:
        executed: passes over the transformer so far, counted where they happen and not where they are asked for.
    """

    def __init__(
        self, codec: FrameCodec, wam: WorldActionTransformer, embodiment: Embodiment, *, passes: int,
        noise_seed: int = 0,
    ) -> None:  # fmt: skip
        if passes < 1:
            raise ConfigError(f"{passes} passes", expected="at least 1")
        self.codec, self.wam, self.embodiment = codec.eval(), wam.eval(), embodiment
        self.passes, self.noise_seed, self.executed = passes, noise_seed, 0
        wam.blocks[0].register_forward_hook(self._count)
        self._model = model_sizes(wam.config, noise_seed)
        self._dt_ns = embodiment.chunk_dt_ms * 1_000_000
        self._history = FrameHistory(self._model, self._dt_ns)
        self._past = context_buffers(self._model)
        self._q01, self._q99 = embodiment.vector("action_q01"), embodiment.vector("action_q99")
        self._instruction: str | None = None

    def _count(self, *_: object) -> None:
        self.executed += 1

    def reset(self) -> None:
        """Forget the past: a new episode."""
        self._history.clear()

    @torch.no_grad()
    def infer(self, observation: Observation, prefix: F64, sequence: int) -> tuple[ActionChunk, Imagination, Latents]:
        """As :meth:`edge_wam.policy.Policy.infer`."""
        self._instruct(observation.instruction)
        captured_ns = min(frame.captured_at_ns for frame in observation.frames.values())
        latent = self.codec.encode(torch.from_numpy(self._canvas(observation))[None])
        position = observation.joint_position
        state = torch.from_numpy(self.embodiment.normalise_state(position, observation.joint_setpoint))[None]
        self._history.fill(captured_ns, *self._past)
        past_kv, past_mask = (torch.from_numpy(array) for array in self._past)
        known, mask = self._committed(prefix, position)
        video, action = self._noise(sequence)
        down = 1.0 / self.passes
        action, video, new_kv = self.wam.step(
            latent, state, video, action, known, mask, past_kv, past_mask, self._cross, target=1.0 - down
        )
        for k in range(1, self.passes):
            level = 1.0 - k * down
            # The last target is 0 to the bit: what is left of a jump would be left of the noise.
            target = 0.0 if k == self.passes - 1 else level - down
            action, video = self.wam.refine(
                video, action, known, mask, past_kv, past_mask, new_kv, self._cross, level=level, target=target
            )
        self._history.append(captured_ns, new_kv.numpy())
        q = decode_chunk(action[0].numpy(), position, self._q01, self._q99, self.embodiment.relative)
        q[: len(prefix)] = prefix
        chunk = ActionChunk(
            t0_ns=observation.state_at_ns + self._dt_ns, dt_ns=self._dt_ns, q=q,
            observed_at_ns=observation.observed_at_ns, sequence=sequence, model_hash="torch", prefix=len(prefix),
        )  # fmt: skip
        imagined = Imagination(
            latents=video[0].numpy(), sequence=sequence, observed_at_ns=observation.observed_at_ns,
            for_ns=tuple(captured_ns + knots * self._dt_ns for knots in self.wam.config.future_knots),
        )  # fmt: skip
        return chunk, imagined, Latents(latent[0].numpy(), captured_ns)

    def pixels(self, latents: F32) -> F32:
        """What latents [tokens, channels] look like: float32 [3, Hc, Wc] in [-1, 1]."""
        with torch.no_grad():
            return np.asarray(self.codec.decode(torch.from_numpy(np.array(latents))[None])[0].numpy(), np.float32)

    def _instruct(self, text: str) -> None:
        if text != self._instruction:
            tokens = torch.from_numpy(encode_text(text, self.wam.config.text_length))[None]
            self._cross = self.wam.text_kv(tokens)[:, 0]
            self._instruction = text
            self._history.clear()

    def _canvas(self, observation: Observation) -> F32:
        robot = self.embodiment
        out = np.zeros((3, robot.canvas_height, robot.canvas_width), np.float32)
        for c in robot.cameras:
            crop = (c.crop_x, c.crop_y, c.crop_width, c.crop_height)
            at = (c.canvas_x, c.canvas_y, c.canvas_width, c.canvas_height)
            camera_to_canvas(observation.frames[c.name].image, crop, out, at)
        return out

    def _committed(self, prefix: F64, position: F64) -> tuple[Tensor, Tensor]:
        c = self.wam.config
        known, mask = torch.zeros(1, c.horizon, c.action_width), torch.zeros(1, c.horizon)
        if len(prefix):
            known[0, : len(prefix)] = torch.from_numpy(self.embodiment.normalise_action(prefix, position))
            mask[0, : len(prefix)] = 1.0
        return known, mask

    def _noise(self, sequence: int) -> tuple[Tensor, Tensor]:
        """The runtime's own: Philox, keyed by seed and call; first the video's, then the actions'."""
        c = self.wam.config
        generator = np.random.Generator(np.random.Philox(key=[self.noise_seed, sequence]))
        shapes = (1, len(c.future_knots), c.tokens, c.token_channels), (1, c.horizon, c.action_width)
        video, action = (torch.from_numpy(generator.standard_normal(s, dtype=np.float32)) for s in shapes)
        return video, action
