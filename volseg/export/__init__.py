"""What volseg writes of a case: `outputs` lists it, and each output is a module."""
