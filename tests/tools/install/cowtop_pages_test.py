#!/usr/bin/env python3
"""Checks that manual pages and completions of cowtop, and of cowshed, have every subcommand and option that --help lists:
COWTOP=.../cowtop MAN_PAGES=FOLDER COMPLETIONS=FOLDER COWSHED_MAN_PAGES=FOLDER COWSHED_COMPLETIONS=FOLDER
PYTHON=/usr/bin/python3 PYTHONPATH=FOLDER python3 cowtop_pages_test.py"""

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


class PagesTest(unittest.TestCase):
    def shown(self, page):
        """What man makes of a page, and its options."""
        said = subprocess.run(["man", "--warnings=w", "--local-file", page], check=True, capture_output=True, text=True,
                              env={**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8"})
        self.assertEqual(said.stderr, "")
        return said.stdout, re.search(r"^OPTIONS\n(.*?)^\S", said.stdout, re.MULTILINE | re.DOTALL)[1]


class ManPagesTest(PagesTest):
    def page(self, subcommand):
        return os.path.join(MAN_PAGES, "-".join(("cowtop",) + subcommand) + ".1")

    def test_there_is_one_for_each_subcommand_and_no_other(self):
        pages = {os.path.join(MAN_PAGES, name) for name in os.listdir(MAN_PAGES) if name.endswith(".1")}
        self.assertEqual(pages, {self.page(subcommand) for subcommand in COMMANDS})

    def test_they_have_every_option_and_nothing_to_warn_of(self):
        for subcommand in COMMANDS:
            with self.subTest(subcommand=subcommand):
                text, section = self.shown(self.page(subcommand))
                found = re.findall(r"^ {7}(-[^\s,]+)(?:, (--\S+))?", section, re.MULTILINE)
                self.assertEqual(sorted(name for names in found for name in names if name),
                                 options(*subcommand))
                for section in ("NAME", "SYNOPSIS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"):
                    self.assertRegex(text, rf"(?m)^{section}$")


class CompletionTest(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory())
        open(os.path.join(self.folder, "recording"), "w").close()

    def offered(self, *words, line=None, program=COWTOP, completions=COMPLETIONS):
        """What Tab after these words offers in Bash.  `line`, if Bash takes it apart into these words."""
        name = os.path.basename(program)
        script = f"""
            . {BASH_COMPLETION}
            . {completions}/{name}
            compopt() {{ :; }}  # it is for a shell with a prompt
            COMP_LINE=$1; shift
            COMP_POINT=${{#COMP_LINE}} COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _{name} "$1" "${{!#}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        line = line or " ".join((program,) + words)
        said = subprocess.run(["bash", "-c", script, "bash", line, program, *words], check=True,
                              cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(said.stderr, "")
        return sorted(said.stdout.split())


class BashTest(CompletionTest):
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


@unittest.skipUnless("COWSHED_MAN_PAGES" in os.environ, "the package for Python was not built")
class CowshedTest(CompletionTest, PagesTest):
    def setUp(self):
        super().setUp()
        self.program = os.path.join(self.folder, "cowshed")
        with open(self.program, "w") as file:
            file.write(f'#!/bin/sh\nexec {os.environ["PYTHON"]} -B -m cowshed "$@"\n')
        os.chmod(self.program, 0o755)
        commands = output(self.program, "--help").split("\nCommands:\n")[1].split("\n\n")[0]
        self.subcommands = re.findall(r"^  ([a-z]+)", commands, re.MULTILINE)
        self.commands = [(), *((name,) for name in self.subcommands)]

    def options(self, *subcommand):
        text = output(self.program, *subcommand, "--help")
        return sorted(set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", "\n".join(re.findall(r"(?m)^  (-.*?)(?:  |$)", text)))))

    def offered(self, *words):
        return super().offered(*words, program=self.program, completions=os.environ["COWSHED_COMPLETIONS"])

    def test_help_is_read_as_expected(self):
        self.assertEqual(self.subcommands, ["run", "pickled"])
        self.assertTrue({"--undo", "--no-undo", "--preload"} <= set(self.options("run")))
        self.assertTrue({"-o", "--output", "-m"} <= set(self.options("pickled")))

    def test_manual_pages_have_every_option_and_nothing_to_warn_of(self):
        folder = os.environ["COWSHED_MAN_PAGES"]
        pages = {command: "-".join(("cowshed",) + command) + ".1" for command in self.commands}
        self.assertEqual(set(os.listdir(folder)), set(pages.values()))
        for command, page in pages.items():
            with self.subTest(page=page):
                text, section = self.shown(os.path.join(folder, page))
                found = " ".join(re.findall(r"^ {7}(-.*?)(?:  |$)", section, re.MULTILINE))
                self.assertEqual(sorted(set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", found))), self.options(*command))
                for heading in ("NAME", "SYNOPSIS", "SEE ALSO", *(("EXIT STATUS", "EXAMPLES") if command else ("COMMANDS",))):
                    self.assertRegex(text, rf"(?m)^{heading}$")
                self.assertIn("\n       " + " ".join(("cowshed",) + command) + " [", text)

    def test_bash_offers_what_help_lists(self):
        for command in self.commands:
            with self.subTest(command=command):
                self.assertEqual(self.offered(*command, "-"), self.options(*command))
        self.assertEqual(self.offered("ru"), ["run"])

    def test_bash_leaves_the_rest_to_the_program(self):
        for words in (("run",), ("run", "--undo"), ("run", "--above", "1MiB"), ("run", "--"), ("run", "--undo", "--")):
            with self.subTest(words=words):
                self.assertIn("true", self.offered(*words, "tru"))
                self.assertEqual(self.offered(*words, "cat", "rec"), ["recording"])
        self.assertEqual(self.offered("pickled", "rec"), ["recording"])
        self.assertEqual(self.offered("pickled", "-o", "rec"), ["recording"])
        self.assertEqual(self.offered("run", "--above", ""), [])


if __name__ == "__main__":
    unittest.main()
