"""mpspmd-doctor: will mpspmd run on this machine?"""
