"""What the learning stages read of a run."""

import numpy as np
import pyarrow as pa

from pipelines.dataset import item_categories


def test_items_of_a_category_share_its_number_and_others_have_their_own():
    items = pa.table({"item_id": list("abcdef"), "category": ["tea", None, "cups", "tea", "", "1"]})

    numbers = item_categories(items)

    assert sorted(set(numbers.tolist())) == [0, 1, 2, 3, 4]
    assert numbers[0] == numbers[3]
    assert len(set(numbers[[0, 1, 2, 4, 5]].tolist())) == 5


def test_without_the_column_every_item_is_its_own_category():
    numbers = item_categories(pa.table({"item_id": ["a", "b", "c"]}))

    np.testing.assert_array_equal(np.sort(numbers), [0, 1, 2])


def test_categories_may_be_numbers():
    numbers = item_categories(pa.table({"item_id": ["a", "b", "c"], "category": [7, 7, 12]}))

    assert numbers[0] == numbers[1] != numbers[2]
