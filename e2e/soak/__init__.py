"""Random faults under load: a seeded schedule, what each fault does, and which requests it may cost."""
