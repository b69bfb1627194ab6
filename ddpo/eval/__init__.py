"""Does the tuned model do better, how sure is that, and does it carry over to prompts it was not trained on?

`job.evaluate_checkpoint` tells the story; `protocol.evaluate` samples and scores, `stats` judges, `report` keeps, `render` shows.
"""
