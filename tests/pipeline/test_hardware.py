"""What the machine computes with is read from what Linux says of it."""

from pathlib import Path

from pipeline.hardware import has_bfloat16


def test_bfloat16_is_chosen_where_the_cpu_has_it(tmp_path: Path):
    (tmp_path / "new").write_text("flags\t\t: fpu avx2 avx512_bf16\n")
    (tmp_path / "old").write_text("flags\t\t: fpu avx2\n")
    assert has_bfloat16(tmp_path / "new") and not has_bfloat16(tmp_path / "old") and not has_bfloat16(tmp_path / "none")
