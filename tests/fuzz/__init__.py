"""What must hold for every input: a table of targets (`targets`), kept inputs (`corpus`), and how to change them."""
