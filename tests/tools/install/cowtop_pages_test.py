#!/usr/bin/env python3
"""Checks that cowtop's manual pages and completions have every subcommand and option that --help lists:
COWTOP=.../cowtop MAN_PAGES=FOLDER COMPLETIONS=FOLDER python3 cowtop_pages_test.py"""

import os
import re
import subprocess
import tempfile
import unittest

COWTOP = os.environ["COWTOP"]
MAN_PAGES = os.environ["MAN_PAGES"]
COMPLETIONS = os.environ["COMPLETIONS"]
BASH_COMPLETION = "/usr/share/bash-completion/bash_completion"


def output(*command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **more).stdout


def subcommands():
    usage = output(COWTOP, "--help").split("\n\n")[0]
    return sorted(set(re.findall(r"^ +cowtop ([a-z]+)", usage, re.MULTILINE)))


def options(*subcommand):
    listed = output(COWTOP, *subcommand, "--help").split("\nOptions:\n")[1].split("\n\n")[0]
    return sorted(name for names in re.findall(r"^  (-\S+)", listed, re.MULTILINE)
                  for name in names.split(","))


# Each command line that has options of its own: cowtop, and cowtop with each subcommand.
COMMANDS = [()] + [(name,) for name in subcommands()]


class HelpTest(unittest.TestCase):
    def test_is_read_as_expected(self):
        self.assertIn(("record",), COMMANDS)
        self.assertTrue({"--help", "-V", "--version", "-o", "--output"} <= set(options("record")))


class ManPagesTest(unittest.TestCase):
    def page(self, subcommand):
        return os.path.join(MAN_PAGES, "-".join(("cowtop",) + subcommand) + ".1")

    def test_there_is_one_for_each_subcommand_and_no_other(self):
        pages = {os.path.join(MAN_PAGES, name) for name in os.listdir(MAN_PAGES) if name.endswith(".1")}
        self.assertEqual(pages, {self.page(subcommand) for subcommand in COMMANDS})

    def test_they_have_every_option(self):
        for subcommand in COMMANDS:
            with self.subTest(subcommand=subcommand):
                text = output("man", "--local-file", self.page(subcommand),
                              env={**os.environ, "MANWIDTH": "100", "LC_ALL": "C"})
                section = re.search(r"^OPTIONS\n(.*?)^\S", text, re.MULTILINE | re.DOTALL)[1]
                found = re.findall(r"^ {7}(-[^\s,]+)(?:, (--\S+))?", section, re.MULTILINE)
                self.assertEqual(sorted(name for names in found for name in names if name),
                                 options(*subcommand))
                for section in ("NAME", "SYNOPSIS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"):
                    self.assertRegex(text, rf"(?m)^{section}$")

    def test_man_has_nothing_to_warn_of(self):
        for subcommand in COMMANDS:
            with self.subTest(subcommand=subcommand):
                said = subprocess.run(["man", "--warnings=w", "--local-file", self.page(subcommand)],
                                      check=True, capture_output=True, text=True)
                self.assertEqual(said.stderr, "")


class CompletionTest(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory())
        open(os.path.join(self.folder, "recording"), "w").close()


class BashTest(CompletionTest):
    def offered(self, *words, line=None):
        """What Tab after these words offers.  `line`, if Bash takes it apart into these words."""
        script = f"""
            . {BASH_COMPLETION}
            . {COMPLETIONS}/cowtop
            compopt() {{ :; }}  # it is for a shell with a prompt
            COMP_LINE=$1; shift
            COMP_POINT=${{#COMP_LINE}} COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _cowtop "$1" "${{!#}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        line = line or " ".join((COWTOP,) + words)
        said = subprocess.run(["bash", "-c", script, "bash", line, COWTOP, *words], check=True,
                              cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(said.stderr, "")
        return sorted(said.stdout.split())

    def test_offers_the_options_that_help_lists(self):
        for subcommand in COMMANDS:
            with self.subTest(subcommand=subcommand):
                self.assertEqual(self.offered(*subcommand, "-"), options(*subcommand))

    def test_offers_subcommands_first_alone(self):
        self.assertTrue(set(subcommands()) <= set(self.offered("")))
        self.assertEqual(self.offered("tru"), [])
        self.assertNotIn("record", self.offered("--json", "recor"))

    def test_offers_arguments_of_options(self):
        self.assertEqual(self.offered("--backend", ""), ["auto", "pagemap", "tracepoint"])
        self.assertEqual(self.offered("--backend", "=", "t", line=COWTOP + " --backend=t"),
                         ["tracepoint"])
        self.assertEqual(self.offered("record", "-o", "rec"), ["recording"])
        self.assertIn(str(os.getpid()), self.offered("-p", ""))
        self.assertEqual(self.offered("-u", "nobod"), ["nobody"])
        self.assertEqual(self.offered("--all", "-c", ""), [])

    def test_offers_operands(self):
        self.assertEqual(self.offered("report", "rec"), ["recording"])
        self.assertEqual(self.offered("diff", "recording", "rec"), ["recording"])
        self.assertEqual(self.offered("doctor", ""), [])

    def test_leaves_what_belongs_to_the_command_to_its_own_completion(self):
        for words in (("--",), ("record", "-o", "file", "--"), ("check", "--max-copied", "0", "--")):
            with self.subTest(words=words):
                self.assertEqual(self.offered(*words, "cat", "rec"), ["recording"])
                self.assertIn("true", self.offered(*words, "tru"))


class ZshTest(CompletionTest):
    def specifications(self, *words):
        """What _arguments, which completes by them, is given after these words."""
        script = f"""
            _arguments() {{ print -rl -- "$@" }}
            _call_program() {{ shift; "$@" }}
            words=("$@" '') CURRENT=$(( $# + 1 ))
            . {COMPLETIONS}/_cowtop
        """
        return output("zsh", "-f", "-c", script, "zsh", COWTOP, *words).splitlines()

    def completed(self, line):
        """What Tab makes of a line, in a shell with a terminal."""
        script = f"""
            zmodload zsh/zpty
            zpty shell zsh -f -i
            zpty -w shell 'fpath=({COMPLETIONS} $fpath); autoload -Uz compinit; compinit -D -u'
            zpty -w shell 'cd {self.folder}; path=({os.path.dirname(COWTOP)} $path)'
            zpty -w shell 'complete() {{ zle complete-word; print -r -- "=<$BUFFER>=" }}; zle -N complete'
            zpty -w shell 'bindkey "^I" complete; unsetopt auto_list beep; PS1=read"y>"'
            zpty -r shell said '*ready>*'
            zpty -w -n shell "$1"$'\t'
            zpty -r shell said '*=<*>=*'
            print -r -- "${{${{said%>=*}}##*=<}}"
        """
        return output("zsh", "-f", "-c", script, "zsh", line, timeout=60).rstrip("\n")

    def test_is_zsh(self):
        output("zsh", "-f", "-n", os.path.join(COMPLETIONS, "_cowtop"))

    def test_offers_the_options_that_help_lists(self):
        for subcommand in COMMANDS:
            with self.subTest(subcommand=subcommand):
                found = [re.match(r"(?:\(.*?\)|\*)(-[-a-zA-Z]+)[+=]?\[", specification)
                         for specification in self.specifications(*subcommand)]
                self.assertEqual(sorted(match[1] for match in found if match), options(*subcommand))

    def test_says_what_arguments_are(self):
        specifications = self.specifications("check")
        self.assertIn("(--baseline)--baseline=[An earlier measurement]:file:_files", specifications)
        self.assertIn("*-p+[Attach to these processes and their descendants]:process:_pids",
                      specifications)
        self.assertIn("*:: :_normal", specifications)
        self.assertIn("(-u --user)-u+[Run the command as USER]:user:_users", specifications)
        self.assertIn("*:file:_files", self.specifications("diff"))
        self.assertNotIn("*:file:_files", self.specifications("doctor"))

    def test_offers_subcommands_first_alone(self):
        self.assertEqual(self.completed("cowtop recor"), "cowtop record ")
        self.assertEqual(self.completed("cowtop --all recor"), "cowtop --all recor")
        self.assertEqual(self.completed("cowtop -- recor"), "cowtop -- recor")

    def test_leaves_what_belongs_to_the_command_to_its_own_completion(self):
        for before in ("-- ", "--all -- ", "record -o file -- ", "check --max-copied 0 -- "):
            with self.subTest(before=before):
                line = f"cowtop {before}cat rec"
                self.assertEqual(self.completed(line), line + "ording ")
                line = f"cowtop {before}tail --byt"
                self.assertEqual(self.completed(line), line + "es=")
                line = f"cowtop {before}trunc"
                self.assertEqual(self.completed(line), line + "ate ")


if __name__ == "__main__":
    unittest.main()
