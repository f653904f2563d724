"""What people look at: pictures of masks over their scans, and the frame of a page."""
