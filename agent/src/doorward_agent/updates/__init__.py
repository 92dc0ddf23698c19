"""Takes new definitions from the server: believed, tried on this computer, put in force."""
