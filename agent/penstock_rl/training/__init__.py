"""The training loop: draws scenarios, collects episodes, lets an algorithm learn, evaluates, saves. No torch here."""
