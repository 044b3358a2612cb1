"""The guide to adapters prints the example as it is."""

from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_guide_prints_the_example_which_is_short() -> None:
    program = (ROOT / "examples" / "finetune_mace.py").read_text(encoding="utf-8")
    assert f"```py\n{program}```" in (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
    assert len(program.splitlines()) < 25
