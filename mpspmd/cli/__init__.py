"""The commands: mpspmd-launch, mpspmd-top, mpspmd-doctor."""
