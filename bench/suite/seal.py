"""A last line that says what the lines before it were when they were written, so that a test finds
whatever was changed, added or left out by hand since."""
import hashlib

BEGIN, END = "<!-- As written: sha256 ", " -->\n"


def sealed(text):
    return text + BEGIN + hashlib.sha256(text.encode()).hexdigest() + END


def is_whole(text):
    return text.find(BEGIN) >= 0 and sealed(text[:text.rfind(BEGIN)]) == text
