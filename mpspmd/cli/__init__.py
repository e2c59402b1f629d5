"""The commands: mpspmd-launch, mpspmd-top, mpspmd-doctor and so on."""
