"""Scores of picture files: where they come from, the stream of decoded pictures, the rows, the journal, the table, the summary."""

from ddpo.rewards.scored_files.groups import score_groups
from ddpo.rewards.scored_files.journal import Journal, journal_path
from ddpo.rewards.scored_files.run import ScoreRow, Status, score_files
from ddpo.rewards.scored_files.summary import Summary, Tally
from ddpo.rewards.scored_files.table import check_table_path, write_table

__all__ = [
    "Journal",
    "ScoreRow",
    "Status",
    "Summary",
    "Tally",
    "check_table_path",
    "journal_path",
    "score_files",
    "score_groups",
    "write_table",
]
