"""HTTP on this machine: bounded connections, a short log, and pages for one person's browser."""
