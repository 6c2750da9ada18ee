"""Every computed table agrees with the paper, and a wrong network would not."""

import pytest

from kbnn import models, reproduction
from kbnn.errors import UsageError

COMPUTED = [table for table in reproduction.tables() if isinstance(table, reproduction.Analytic)]


@pytest.mark.parametrize("table", COMPUTED, ids=lambda table: table.name)
def test_every_computed_table_agrees_with_the_paper(table: reproduction.Analytic):
    comparison = table.compare(models.build)
    assert comparison.cells
    assert comparison.agrees, str(comparison)


def test_a_wrong_count_is_seen():
    def shallow(*arguments: object, **options: object) -> object:
        return models.build(*arguments, **options, blocks=2)

    assert not reproduction.get("mlbma-entropy").compare(shallow).agrees


def test_near_names_are_offered():
    with pytest.raises(UsageError, match="did you mean bireal-table3"):
        reproduction.get("bireal-table-3")


def test_names_are_unique_and_sourced():
    names = [table.name for table in reproduction.tables()]
    assert len(set(names)) == len(names)
    assert all(table.source for table in reproduction.tables())
