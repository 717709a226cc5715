"""Domains of a head with batch norm for each: whose statistics a slice takes, and new domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emcache.errors import StoreError
from emcache.training.batches import Examples
from emcache.training.sampling import Sources, chunks
from emcache.training.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Domains:
    """Every dataset that a head has statistics of, or is to have."""

    sources: Sources
    names: Sequence[str]
    """Of the datasets, those of the training first; none where the head knows no domains."""
    known: int = 0
    """How many of them the head has learned from."""

    @classmethod
    def of(cls, sources: Sources, align: str, trained: Sequence[str] = ()) -> Domains:
        """The domains of these sources.

        Args:
            sources: To train on, or to score.
            align: The protocol's alignment.
            trained: Names of the domains that a head has already.
        """
        if align != "batch-norm":
            return cls(sources, ())
        own = [source.dataset.first_name for source in sources.items]
        return cls(sources, tuple(dict.fromkeys([*trained, *own])), len(trained))

    def at(self, position: int) -> int:
        """Whose statistics the slice at a position takes."""
        if not self.names:
            return 0
        return self.names.index(self.sources.at(position)[0].dataset.first_name)

    def slices(self, split: str, *, new: bool) -> list[list[int]]:
        """Positions of the slices of a split, for each domain that statistics are wanted of.

        Args:
            split: ``train`` or ``test``.
            new: Only of domains that the head has not learned from.

        Raises:
            StoreError: Such a domain has no slices of this split.
        """
        wanted = []
        for source in self.sources.items:
            name = source.dataset.first_name
            if not self.names or (new and self.names.index(name) < self.known):
                continue
            if not (positions := source.positions(split)):
                raise StoreError(
                    f"dataset {name} has no slices to take an alignment from; expected some in "
                    f"the split of align_on ({split}): set its split in emcache.toml.",
                    subject=name,
                )
            wanted.append(positions)
        return wanted

    def adapt(self, trainer: Trainer, examples: Examples, positions: Sequence[int]) -> None:
        """Take the statistics of one domain from unlabelled slices.

        Args:
            trainer: Whose model is to know the domain.
            examples: Where inputs come from.
            positions: The slices, all of one domain.
        """
        steps = chunks(positions, trainer.protocol.batch)
        trainer.adapt_norms(self.at(positions[0]), examples.steps(steps))
