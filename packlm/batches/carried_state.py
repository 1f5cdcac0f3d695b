"""The state that streams carry from one window to the next."""

import torch

from packlm.batches.segments import Segments
from packlm.model.recurrence import State


def initial_state(zero: State, carried: State, segments: Segments) -> State:
    """The state that each segment of a window starts from: its stream's, or `zero` (that of one segment). For each layer [C, B, S]."""
    indices = torch.from_numpy(segments.initial_streams).to(zero[0].device)
    indices = torch.where(indices < 0, carried[0].shape[1], indices)
    return tuple(torch.cat([states, start], 1).index_select(1, indices) for states, start in zip(carried, zero, strict=True))


def next_state(carried: State, final: State, segments: Segments) -> State:
    """The state that each stream carries on, detached: for each layer [C, streams, S]."""
    indices = torch.from_numpy(segments.final_segments).to(carried[0].device)
    streams = torch.arange(len(indices), device=indices.device)
    indices = torch.where(indices < 0, streams, indices + len(streams))
    return tuple(torch.cat([states, ends.detach()], 1).index_select(1, indices) for states, ends in zip(carried, final, strict=True))
