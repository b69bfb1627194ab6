"""Scores of picture files: where they come from, the stream of decoded pictures, the rows, the journal, the table, the summary."""

from ddpo.rewards.image_files.groups import score_groups
from ddpo.rewards.image_files.journal import Journal, journal_path
from ddpo.rewards.image_files.run import ScoreRow, Status, score_files
from ddpo.rewards.image_files.summary import RunningSummary, Summary
from ddpo.rewards.image_files.table import check_table_path, write_table

__all__ = [
    "Journal",
    "RunningSummary",
    "ScoreRow",
    "Status",
    "Summary",
    "check_table_path",
    "journal_path",
    "score_files",
    "score_groups",
    "write_table",
]
