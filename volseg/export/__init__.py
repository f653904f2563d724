"""What volseg writes for other programs: `outputs` lists it, and each is a module."""
