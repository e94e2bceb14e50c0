"""How bytes are shared on a device, and why so: what a plan does there, and what ``status`` tells. Pure."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from msgspec import Struct

from .model import Goal, Method, MethodChoice, Reason

if TYPE_CHECKING:
    from .model import Device
    from .plan import PlanOptions


class Why(enum.Enum):
    """What decides how bytes are shared on a device."""

    ALWAYS_COPY = "always_copy"
    GOAL_INODES = "goal_inodes"
    METHOD_REFLINK = "method_reflink"
    METHOD_HARDLINK = "method_hardlink"
    CAN_REFLINK = "can_reflink"
    CANNOT_REFLINK = "cannot_reflink"


class Way(Struct, frozen=True):
    """``reflink``: extents are shared, else names; ``refused``: why nothing can be by what was asked for.

    ``either``: what may be no hard link gets the extents at least.
    """

    reflink: bool
    why: Why
    refused: Reason | None = None
    either: bool = False


def way_on(device: Device, options: PlanOptions) -> Way:
    """Return how bytes are shared on a device."""
    if options.reflink_only:
        return Way(True, Why.ALWAYS_COPY, None if device.reflink else Reason.COPIES_ASKED)
    auto = options.method is MethodChoice.AUTO
    if auto and options.goal is Goal.INODES and device.hardlink:
        return Way(False, Why.GOAL_INODES, either=device.reflink)
    if options.method is MethodChoice.REFLINK:
        return Way(device.reflink, Why.METHOD_REFLINK, None if device.reflink else Reason.NO_REFLINK)
    refused = None if device.reflink or device.hardlink else Reason.NO_SHARING
    if options.method is MethodChoice.HARDLINK:
        return Way(False, Why.METHOD_HARDLINK, refused)
    return Way(device.reflink, Why.CAN_REFLINK if device.reflink else Why.CANNOT_REFLINK, refused)


def held_on(device: Device, options: PlanOptions) -> Reason | None:
    """Why nothing at all is shared on a device, if so."""
    way = way_on(device, options)
    upper = options.same_layer or options.fresh_since_ns is not None
    if way.refused is None and not way.reflink and device.overlay and not upper:
        return Reason.OVERLAY
    return way.refused


def methods_on(device: Device, options: PlanOptions) -> tuple[Method, ...]:
    """Return what may be used on a device, the first before the others; nothing where all is held."""
    if held_on(device, options) is not None:
        return ()
    way = way_on(device, options)
    if way.reflink:
        return (Method.REFLINK, Method.BLOCKS)
    return (Method.HARDLINK, Method.REFLINK, Method.BLOCKS) if way.either else (Method.HARDLINK,)
