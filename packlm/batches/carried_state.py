"""The state that streams carry from one window to the next."""

import torch

from packlm.batches.segments import Segments
from packlm.model.recurrence import State


def initial_state(zero: State, carried: State, segments: Segments) -> State:
    """What each segment of a window starts from: its stream's state, or `zero` (that of one segment). For each layer [C, B, H]."""
    take = torch.from_numpy(segments.take).to(zero[0].device)
    take = torch.where(take < 0, carried[0].shape[1], take)
    return tuple(torch.cat([own, none], 1).index_select(1, take) for own, none in zip(carried, zero, strict=True))


def next_state(carried: State, final: State, segments: Segments) -> State:
    """What each stream carries on, cut off from the gradient: for each layer [C, S, H]."""
    leave = torch.from_numpy(segments.leave).to(carried[0].device)
    own = torch.arange(len(segments.leave), device=leave.device)
    leave = torch.where(leave < 0, own, leave + len(segments.leave))
    return tuple(torch.cat([kept, new.detach()], 1).index_select(1, leave) for kept, new in zip(carried, final, strict=True))
