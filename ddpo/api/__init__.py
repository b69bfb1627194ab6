"""The functions of `import ddpo`: rewards, scores, training and evaluation in one line each."""
