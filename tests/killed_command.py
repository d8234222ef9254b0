"""A command that kills itself, for tests of what goes on after that."""

# A run that is killed before it renames something to a name of this end for the so-manieth time.
KILLED = """
import os, signal, sys
end, left, words = sys.argv[1], [int(sys.argv[2])], sys.argv[3:]

def hook(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith(end):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
from neural_clip.commands.main import main
main(words)
"""
