"""The transaction action: conda's word on what it linked where (conda >= 25.5).

It only records. An exception here would make conda take the user's whole transaction back.
"""

from __future__ import annotations

from conda.core.path_actions import Action


class RecordTransaction(Action):  # type: ignore[misc]
    """Notes the prefix and the packages of a transaction, for the work after the command."""

    def verify(self) -> None:
        """There is nothing to verify."""
        self._verified = True

    def execute(self) -> None:
        """Record; never raise."""
        from . import hooks

        hooks.transaction(self.target_prefix, self.link_precs, self.unlink_precs)

    def reverse(self) -> None:
        """Forget the record: conda takes the transaction back. May be called twice."""
        from . import hooks

        hooks.transaction_reversed(self.target_prefix)

    def cleanup(self) -> None:
        """There is nothing to clean up."""
