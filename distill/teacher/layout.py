"""Which token may look at which when a whole clip is trained at once (teacher forcing).

The sequence is [clean frames | noisy frames | actions | states]. Frame 0 stands alone (block -1), block i holds
``frames_per_block`` frames, their actions and their state. One rule, from which both a dense mask and a FlexAttention
mask are made:

=================  ==================================================================
who                sees
=================  ==================================================================
clean, block i     clean frame 0 and the clean frames up to its own block, within the window
noisy frame 0      itself
noisy, block i     clean frames before its block; noisy frames, actions and state of its block
action, block i    the same as the noisy frames of its block
state, block i     itself (``state_sees_block``: the same as the noisy frames of its block)
=================  ==================================================================

Reference: DreamZero ``CausalWanSelfAttention``, teacher-forcing branch. One difference: for clips without actions the
reference lets a noisy frame see its own clean frame, which is the answer; here the rule above holds without registers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask


class Role(IntEnum):
    CLEAN = 0
    NOISY = 1
    ACTION = 2
    STATE = 3


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """A teacher-forced clip.

    Attributes:
        frames: latent frames, the first included.
        frame_tokens: tokens of a frame.
        actions, states: tokens of one block; 0 and 0 for a clip without actions.
        window_frames: how far back clean frames look, in frames.
        state_sees_block: as at inference, where one dense attention lets the state look at everything.
    """

    frames: int
    frame_tokens: int
    frames_per_block: int
    actions: int
    states: int
    window_frames: int
    state_sees_block: bool = False

    @property
    def blocks(self) -> int:
        return (self.frames - 1) // self.frames_per_block

    @property
    def video_tokens(self) -> int:
        return self.frames * self.frame_tokens

    @property
    def length(self) -> int:
        return 2 * self.video_tokens + self.blocks * (self.actions + self.states)

    def places(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """Role, block and frame of every token, each [length]; the frame of an action or a state is 0."""
        frame = torch.arange(self.frames, device=device).repeat_interleave(self.frame_tokens)
        block = torch.div(frame - 1, self.frames_per_block, rounding_mode="floor")
        number = torch.arange(self.blocks, device=device)
        registers = [number.repeat_interleave(count) for count in (self.actions, self.states)]
        counts = (self.video_tokens, self.video_tokens, len(registers[0]), len(registers[1]))
        role = torch.arange(len(Role), device=device).repeat_interleave(torch.tensor(counts, device=device))
        nothing = torch.zeros(counts[2] + counts[3], dtype=frame.dtype, device=device)
        return role, torch.cat([block, block, *registers]), torch.cat([frame, frame, nothing])

    def dense_mask(self, device: torch.device | str = "cpu") -> Tensor:
        """bool [length, length], True where the row may look at the column."""
        index = torch.arange(self.length, device=device)
        return self._rule(device)(None, None, index[:, None], index[None, :])

    def block_mask(self, device: torch.device | str) -> BlockMask:
        """The same rule for FlexAttention, which never holds the square (15,840 tokens at 14B)."""
        return create_block_mask(self._rule(device), None, None, self.length, self.length, device=str(device))

    def _rule(self, device: torch.device | str) -> Callable[..., Tensor]:
        role, block, frame = self.places(device)
        # Plain numbers: torch.compile, which FlexAttention goes through, takes a comparison with an IntEnum for False.
        clean_, noisy_, action_, state_ = (int(one) for one in Role)

        def allowed(_batch: object, _head: object, q: Tensor, kv: Tensor) -> Tensor:
            q_role, kv_role, q_block, kv_block = role[q], role[kv], block[q], block[kv]
            end = (q_block + 1) * self.frames_per_block + 1
            recent = (frame[kv] == 0) | (frame[kv] >= end - self.window_frames)
            clean = (q_role == clean_) & (kv_role == clean_) & (kv_block <= q_block) & recent
            noisy = (q_role == noisy_) | (q_role == action_)
            if self.state_sees_block:
                noisy = noisy | (q_role == state_)
            past = (kv_role == clean_) & (kv_block < q_block)
            own = (kv_role != clean_) & (kv_block == q_block)
            state = (q_role == state_) & (kv_role == state_) & (kv_block == q_block)
            return clean | (noisy & (past | own)) | state

        return allowed
