import pytest

from d2tune.report.tables import format_table


def test_numbers_stand_right_and_words_left():
    rows = [["balloon", "1,234", "57.25"], ["kite", "7", "-"], ["hot air", "12", "9.10"]]
    assert format_table(rows, header=["class", "images", "mask AP"]) == (
        "class    images  mask AP\n"
        "-------  ------  -------\n"
        "balloon   1,234    57.25\n"
        "kite          7        -\n"
        "hot air      12     9.10"
    )


@pytest.mark.parametrize(
    ("cell", "right"),
    [
        *[(cell, True) for cell in ("3", "-0.5", "1e-4", "12 %", "2.3 s", "4.1 GiB", "1,234", ".5")],
        *[(cell, False) for cell in ("v2", "3x3", "1.2.3", "", "R50", "nan", "balloon")],
    ],
)
def test_what_counts_as_a_number(cell, right):
    line = format_table([[cell, "x"]], header=["a long name", "b"]).splitlines()[-1]
    assert line == (cell.rjust(11) if right else cell.ljust(11)) + "  x"


def test_control_characters_do_not_shift_columns():
    lines = format_table([["a\x1b[2J\n", "1"], ["b", "10"]], header=["name", "count"]).splitlines()
    assert lines[2:] == ["a\\x1b[2J\\n      1", "b              10"]


def test_alignment_by_letters():
    table = format_table([["1", "2", "3"]], header=["aaa", "bbb", "ccccc"], align="lrc")
    assert table.splitlines()[-1] == "1      2    3"


def test_no_rows_and_wide_letters():
    assert format_table([], header=["a", "bc"]) == "a  bc\n-  --"
    wide = format_table([["气球", "1"], ["café", "22"]], header=["n", "count"]).splitlines()
    assert wide[1:] == ["----  -----", "气球      1", "café     22"]


@pytest.mark.parametrize(
    ("rows", "align", "says"),
    [([["1"]], None, "row 1 has 1 cells, the header has 2"), ([], "l", "expected 2 letters"), ([], "lx", "l, r and c")],
)
def test_bad_shapes(rows, align, says):
    with pytest.raises(ValueError, match=says):
        format_table(rows, header=["a", "b"], align=align)
