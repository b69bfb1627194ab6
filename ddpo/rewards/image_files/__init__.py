"""Scores of image files: decoded ahead, scored in batches, journaled, and written as a table."""

from ddpo.rewards.image_files.groups import score_groups
from ddpo.rewards.image_files.journal import TableJournal, journal_path
from ddpo.rewards.image_files.run import ScoreRow, Status, score_files
from ddpo.rewards.image_files.summary import RunningSummary, Summary
from ddpo.rewards.image_files.table import check_table_path, write_table

__all__ = [
    "RunningSummary",
    "ScoreRow",
    "Status",
    "Summary",
    "TableJournal",
    "check_table_path",
    "journal_path",
    "score_files",
    "score_groups",
    "write_table",
]
