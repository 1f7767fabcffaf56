"""The actor's weights into the rollout engine."""
