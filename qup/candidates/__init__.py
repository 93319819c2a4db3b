"""Where a pool's candidate traces come from: the student's rollouts, given texts, or an Oracle."""
