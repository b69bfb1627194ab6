"""`samples.parquet`: one row per picture and reward, for whoever wants to compute something else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpo.errors import ConfigError
from ddpo.eval.protocol import Row
from ddpo.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read_samples", "write_samples"]

COLUMNS = ("policy", "split", "prompt_id", "prompt", "index", "image_sha256", "image", "reward", "signature", "score", "error")


def write_samples(path: Path, rows: Sequence[Row], *, run: str, checkpoint: str) -> None:
    """Writes the rows with the names of the run and the checkpoint, atomically. An unscorable picture has a null score."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {"run": [run] * len(rows), "checkpoint": [checkpoint] * len(rows)}
    columns |= {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    columns["score"] = [None if row.score != row.score else row.score for row in rows]
    text = [(name, pa.string()) for name in columns]
    kinds = dict(text) | {"index": pa.int32(), "score": pa.float32()}
    table = pa.table(columns, schema=pa.schema([(name, kinds[name]) for name in columns]))
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_samples(path: Path) -> list[Row]:
    """The rows of a file that `write_samples` wrote.

    Raises:
        ConfigError: no such file, not Parquet, or other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        records = pq.read_table(path, columns=list(COLUMNS)).to_pylist()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path} is not a samples.parquet: {str(error).splitlines()[0]}") from error
    return [Row(**{**record, "score": float("nan") if record["score"] is None else record["score"]}) for record in records]
