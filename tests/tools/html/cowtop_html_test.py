#!/usr/bin/env python3
"""That the pages of cowtop report --html and cowtop diff --html work in a browser:
COWTOP=.../cowtop HTML_RECORDINGS=.../html_recordings python3 cowtop_html_test.py"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

try:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait
except ImportError:
    webdriver = None

COWTOP = os.environ["COWTOP"]
HTML_RECORDINGS = os.environ["HTML_RECORDINGS"]
DRIVER = shutil.which("chromedriver")
SECONDS = 120  # a busy machine's
SKIPPED = 77

PHONE = 360


def run(*command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **more)


class HtmlTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="cowtop-html-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        options = Options()
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
                         "--force-prefers-reduced-motion", f"--user-data-dir={cls.folder}/profile"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        cls.browser = webdriver.Chrome(service=Service(DRIVER), options=options)
        cls.addClassCleanup(cls.browser.quit)
        cls.browser.set_page_load_timeout(SECONDS)
        cls.browser.set_script_timeout(SECONDS)

    def setUp(self):
        self.size(1280, 900)
        self.logs("browser")
        self.logs("performance")
        self.pages = 0

    def tearDown(self):
        if self.pages == 0:
            return
        self.assertEqual(self.logs("browser"), [], "the console is empty")
        fetched = [message["params"]["request"]["url"] for message in
                   (json.loads(entry["message"])["message"] for entry in self.logs("performance"))
                   if message["method"] == "Network.requestWillBeSent"]
        self.assertEqual([url for url in fetched if not url.startswith("file://")], [])
        self.assertEqual(len(fetched), self.pages, fetched)

    def logs(self, kind):
        return self.browser.get_log(kind)

    def size(self, width, height):
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})

    def script(self, text, *arguments):
        return self.browser.execute_script(text, *arguments)

    def wait(self, condition):
        return WebDriverWait(self.browser, SECONDS).until(condition)

    def recording(self, kind):
        path = self.folder / f"{kind}.cowtop"
        if not path.exists():
            run(HTML_RECORDINGS, kind, path)
        return path

    def open(self, path):
        self.browser.get(path.as_uri())
        self.pages += 1
        self.wait(lambda browser: self.script("return document.documentElement.dataset.readyMs"))

    def open_report(self, kind):
        path = self.folder / f"{kind}.html"
        if not path.exists():
            run(COWTOP, "report", self.recording(kind), "--html", path)
        self.open(path)

    def json_report(self, kind):
        return json.loads(run(COWTOP, "report", "--json", self.recording(kind)).stdout)

    def data(self, selector):
        return self.script("return {...document.querySelector(arguments[0]).dataset}", selector)

    def search(self, text):
        field = self.browser.find_element(By.ID, "search")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(Keys.DELETE)
        field.send_keys(text)
        self.wait(lambda browser: self.data("html").get("searched", "") == text.lower())

    def text(self, selector):
        return self.script("return document.querySelector(arguments[0]).innerText", selector)

    def rows(self, panel):
        return self.script("return [...document.querySelectorAll(`#${arguments[0]} tbody tr:not(.space)`)]"
                           ".map((row) => row.innerText.split('\\t').map((cell) => cell.replace(/[\u25b8\u25be]/, '').trim()))", panel)

    def check_sums(self, kind):
        processes = self.json_report(kind)["processes"]
        copied = [process["all_copied_pages"] for process in processes
                  if process["all_copied_pages"] is not None]
        self.assertEqual(self.data("#flame")["pages"], str(sum(copied)))
        folded = run(COWTOP, "report", "--folded", self.recording(kind)).stdout.splitlines()
        self.assertEqual(sum(int(line.rsplit(" ", 1)[1]) for line in folded if not line.startswith("[new memory]")),
                         sum(copied))

    def check_width(self):
        self.size(PHONE, 740)
        self.wait(lambda browser: self.script("return document.documentElement.clientWidth") == PHONE)
        self.assertEqual(self.script("return document.documentElement.scrollWidth"), PHONE)
        outside = self.script(
            "return [...document.querySelectorAll('body *')].filter((each) => {"
            "  const box = each.getBoundingClientRect();"
            "  return box.width > 0 && box.right > document.documentElement.clientWidth + 0.5 && !each.closest('.table');"
            "}).map((each) => each.outerHTML.slice(0, 200))")
        self.assertEqual(outside, [])


class ReportTest(HtmlTest):
    KINDS = ("pool", "full", "hostile", "sparse", "shell")

    def test_sums_are_those_of_the_json(self):
        for kind in self.KINDS:
            with self.subTest(kind=kind):
                self.open_report(kind)
                self.check_sums(kind)

    def test_begins_with_the_report_of_the_terminal(self):
        for kind in (*self.KINDS, "no-process"):
            with self.subTest(kind=kind):
                self.open_report(kind)
                report = run(COWTOP, "report", self.recording(kind)).stdout
                self.assertEqual(self.text("#report").split(), report.split())

    def test_shows_what_there_is(self):
        self.open_report("pool")
        self.assertEqual([row[0] for row in self.rows("processes")],
                         ["server 100", "worker 104", "worker 103", "worker 102", "worker 101"])
        for panel in ("curves", "flame", "sites", "why", "objects", "arenas", "mappings", "types"):
            self.assertIn(panel, self.script(
                "return [...document.querySelectorAll('section')].map((each) => each.id)"))
        self.assertIn("exact", self.text("main"))
        self.assertIn("./server --workers 4", self.text("h1"))

    def test_sorts(self):
        self.open_report("pool")
        self.browser.find_element(By.XPATH, "//button[text()='Flat']").click()
        heading = self.browser.find_element(By.XPATH, "//section[@id='processes']//th[3]/button")
        heading.click()
        self.assertEqual(self.rows("processes")[0][0], "server 100")
        heading.click()
        self.assertEqual(self.rows("processes")[0][0], "worker 104")
        self.browser.find_element(By.XPATH, "//section[@id='processes']//th[1]/button").click()
        self.assertEqual(self.rows("processes")[0][0], "server 100")

    def test_search_finds_processes_functions_and_evidence(self):
        self.open_report("pool")
        self.search("worker 103")
        self.assertEqual([row[0] for row in self.rows("processes")], ["server 100", "worker 103"])
        self.assertEqual({row[1] for row in self.rows("why")}, {"worker 103"})
        self.search("ADD QWORD")
        self.assertEqual({row[0] for row in self.rows("why")}, {"reference count"})
        self.search("fill(int)")
        self.assertEqual(len(self.rows("sites")), 1)
        self.assertEqual(self.rows("objects"), [])
        self.search("function_0_0")
        self.assertIn("of the copies", self.text("#flame .count"))
        self.assertEqual([row[0] for row in self.rows("processes")],
                         ["server 100", "worker 104", "worker 101"])
        self.search("there is no such thing")
        for panel in ("processes", "sites", "why", "objects", "mappings", "types"):
            self.assertEqual(self.rows(panel), [])
        self.search("")
        self.assertEqual(len(self.rows("processes")), 5)

    def test_a_chosen_process_shows_its_details(self):
        self.open_report("pool")
        self.browser.find_element(By.XPATH, "//td[contains(., 'worker 102')]").click()
        self.assertIn("worker 102", self.text(".detail"))
        self.assertIn("512.0 MiB", self.text(".detail"))
        self.assertIn("worker 102", self.text("#flame .path"))
        self.browser.find_element(By.XPATH, "//td[contains(., 'worker 102')]").click()
        self.assertEqual(self.browser.find_elements(By.CSS_SELECTOR, ".detail"), [])

    def test_every_button_can_be_pressed(self):
        for kind in self.KINDS:
            with self.subTest(kind=kind):
                self.open_report(kind)
                buttons = "return document.querySelectorAll('main button')"
                for i in range(self.script(buttons + ".length")):
                    self.script(f"({buttons.removeprefix('return ')}[{i}] || document.body).click()")
                self.script("document.querySelectorAll('canvas').forEach((canvas) => {"
                            "  const box = canvas.getBoundingClientRect();"
                            "  for (let i = 0; i < 100; ++i) for (const kind of ['pointermove', 'click'])"
                            "    canvas.dispatchEvent(new PointerEvent(kind, {bubbles: true,"
                            "      clientX: box.left + box.width * (i % 10) / 10,"
                            "      clientY: box.top + box.height * Math.floor(i / 10) / 10}));"
                            "})")

    def test_light_and_dark(self):
        background = "return getComputedStyle(document.body).backgroundColor"
        for preferred in ("light", "dark"):
            self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {
                "features": [{"name": "prefers-color-scheme", "value": preferred}]})
            self.open_report("pool")
            self.assertEqual(self.data("html")["theme"], preferred)
        dark = self.script(background)
        self.browser.find_element(By.ID, "theme").click()
        self.assertEqual(self.data("html")["theme"], "light")
        self.assertNotEqual(self.script(background), dark)
        self.open_report("pool")
        self.assertEqual(self.data("html")["theme"], "light", "it is remembered")
        self.script("localStorage.clear()")
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    def test_on_a_phone(self):
        for kind in self.KINDS:
            with self.subTest(kind=kind):
                self.open_report(kind)
                self.check_width()
                self.script("const row = document.querySelector('tr.pick'); if (row) row.click()")
                self.check_width()
                self.size(1280, 900)

    def test_an_exec_ends_the_sharing(self):
        self.open_report("shell")
        cells = {row[0].split()[1]: row for row in self.rows("processes") if row[0].startswith("worker")}
        self.assertEqual(cells["101"][1:7:5], ["\u2013", "\u2013"], "shared at its fork, and still")
        self.assertIn("512", cells["103"][1])

    def test_a_figure_is_that_of_the_json_and_of_the_text(self):
        def text_of(value, unit):
            if value is None:
                return "\u2013"
            if unit == "ratio":
                return f"{value * 100:.1f}%"
            if unit == "seconds":
                return f"{value:.{2 if value < 10 else 1}f} s"
            if unit == "count":
                return f"{value:,}"
            if unit == "nanoseconds":
                return milliseconds(value)
            for name in ("B", "KiB", "MiB"):
                if value < 1024:
                    return f"{value:.{0 if name == 'B' or value >= 1000 else 1}f} {name}"
                value /= 1024
            return f"{value:.1f} GiB"

        def milliseconds(value):
            return f"{value / 1e6:.{2 if value < 1e6 else 1 if value < 1e7 else 0}f}"

        def mebibytes(value):
            return f"{value / 2**20:.1f}" if value < 10_000 << 20 else f"{value / 2**20:,.0f}"

        screens = run(HTML_RECORDINGS).stdout.split()
        self.assertGreater(len(screens), 70)
        for kind in (*self.KINDS, *screens):
            with self.subTest(kind=kind):
                self.open_report(kind)
                figures = self.script("return data.figures")
                rows = {row[0]: row[1:] for row in self.rows("processes")}
                table = run(COWTOP, "report", "--wide", self.recording(kind)).stdout.splitlines()
                heading = next(line for line in table if line.startswith("PID "))
                for process in self.json_report(kind)["processes"]:
                    more = process.get("processes", 1) - 1
                    name = f"{process.get('title', process['comm'])} {process['pid']}" + (f" and {more:,} more" if more else "")
                    if name not in rows:
                        self.assertGreater(len(rows), 20)  # the page shows the first
                        continue
                    row = rows[name]
                    line = next(line for line in table if line.startswith(str(process["pid"]).rjust(3)))
                    for figure, shown in zip(figures, row):
                        value = process
                        for part in figure["name"].split("."):
                            value = value.get(part) if value else None
                        self.assertEqual(shown, text_of(value, figure["unit"]), figure)
                        end = heading.index("  ", heading.index(f"  {figure['title']}") + 2)
                        wide = line[:end].split()[-1]
                        self.assertEqual(wide, "-" if value is None else f"{value * 100:.1f}%" if figure["unit"] == "ratio"
                                         else mebibytes(value) if figure["unit"] == "bytes"
                                         else text_of(value, figure["unit"]) if figure["unit"] in ("count", "nanoseconds")
                                         else f"{value:.1f}")

    def test_a_site_has_the_name_and_the_copies_that_the_text_gives_it(self):
        self.open_report("shell")
        text = run(COWTOP, "report", "--wide", self.recording("shell")).stdout
        self.assertIn("       ~5016  _start (ld-linux-x86-64.so.2)\n", text)
        (site,) = self.rows("sites")
        self.assertEqual(site[:2], ["_start (ld-linux-x86-64.so.2)", "19.6 MiB"])

    def test_prints(self):
        self.open_report("pool")
        self.assertGreater(len(self.browser.print_page()), 10000)

    def test_names_are_only_names(self):
        self.open_report("hostile")
        self.assertEqual(self.script("return document.images.length"), 0)
        self.assertEqual(self.script("return document.scripts.length"), 2)
        self.assertIn("</script><img src=x onerror=document.title='owned'><!--<script>",
                      self.text("#processes"))
        self.assertNotEqual(self.script("return document.title"), "owned")

    def test_the_policy_forbids_what_is_not_the_pages_own(self):
        self.open_report("pool")
        self.script("const image = document.createElement('img');"
                    "image.setAttribute('onerror', 'document.title = \"owned\"');"
                    "image.src = 'http://127.0.0.1:9/x'; document.body.append(image);"
                    "const script = document.createElement('script');"
                    "script.textContent = 'document.title = \"owned\"'; document.body.append(script);")
        refused = self.logs("browser")
        self.assertTrue(any("img-src" in entry["message"] or "default-src" in entry["message"]
                            for entry in refused), refused)
        self.assertTrue(any("script-src" in entry["message"] for entry in refused), refused)
        self.assertNotEqual(self.script("return document.title"), "owned")
        self.logs("performance")
        self.pages = 0

    def test_without_a_process(self):
        self.open_report("no-process")
        self.assertIn("No process was recorded", self.text("#processes"))
        self.check_width()

    def test_of_a_recording_that_has_only_begun(self):
        self.open_report("begun")
        self.assertIn("nothing was recorded, only begun", self.text(".banner"))
        self.assertEqual(self.text("h1"), "./server")
        self.search("server")
        self.check_width()

    def test_a_curve_ends_with_its_process(self):
        self.open_report("pool")
        curve = self.script("return new Curve(0, 1.5, [1, 2], [1, 3], []).copied")
        self.assertEqual(curve, [[0, 0], [1, 4096], [1.5, 3 * 4096]])

    def test_what_is_not_known_is_not_0(self):
        self.open_report("sparse")
        rows = {row[0]: row for row in self.rows("processes")}
        self.assertEqual(rows["server 100"][1], "\u2013")
        self.assertIn("sampled", self.text("main .badge"))
        self.assertIn("at least 1", self.text("main"))
        self.assertIn("not sampled", self.text("#flame"))

    def test_of_a_recording_that_was_cut_short(self):
        whole = self.recording("pool").read_bytes()
        cut = self.folder / "cut.cowtop"
        cut.write_bytes(whole[:len(whole) * 2 // 3])
        page = self.folder / "cut.html"
        run(COWTOP, "report", cut, "--html", page, stderr=subprocess.DEVNULL)
        self.open(page)
        self.assertIn("the report is of the first", self.text(".banner"))
        report = json.loads(run(COWTOP, "report", "--json", cut, stderr=subprocess.DEVNULL).stdout)
        self.assertEqual(self.data("#flame")["pages"],
                         str(sum(process["all_copied_pages"] for process in report["processes"])))

    def test_a_thousand_processes_and_a_million_samples(self):
        self.open_report("large")
        self.check_sums("large")
        report = self.json_report("large")
        self.assertEqual(len(report["processes"]), 1000)
        self.assertGreater(sum(process["samples"] or 0 for process in report["processes"]), 1_000_000)
        self.assertLess(len(self.rows("processes")), 100, "only what is in sight is drawn")
        self.search("worker 900")
        self.assertEqual(self.rows("processes")[-1][0], "worker 900")
        self.search("")
        self.script("const frame = document.querySelector('#processes .table');"
                    "frame.scrollTop = frame.scrollHeight")
        self.wait(lambda browser: len(self.rows("processes")) < 60)
        self.check_width()

    def test_five_thousand_processes(self):
        self.open_report("crowd")
        self.check_sums("crowd")
        self.assertIn("5,000", self.text("#processes .count"))
        self.assertIn("2,000 processes that copied most", self.text("#curves"))
        self.assertLess(len(self.rows("processes")), 100)
        # The last, and the one that has copied least and is in none of the charts.
        for name in ("worker 5099", "worker 101"):
            self.search(name)
            self.assertIn(name, [row[0] for row in self.rows("processes")])
            self.browser.find_element(By.XPATH, f"//section[@id='processes']//td[contains(., '{name}')]").click()
            self.assertIn(name, self.text(".detail"))
            self.assertIn(name, self.text("#flame .path"))
            self.browser.find_element(By.XPATH, "//div[@class='detail']//button").click()
        self.search("")
        self.browser.find_element(By.XPATH, "//button[text()='Flat']").click()
        top = "const frame = document.querySelector('#processes .table'); return frame.scrollTop"
        for place in ("frame.scrollHeight", "frame.scrollHeight / 2", "0"):
            self.script(f"{top} = {place}")
            self.wait(lambda browser: 0 < len(self.rows("processes")) < 100)
        self.script(top + " = frame.scrollHeight")
        self.search("worker")
        self.assertEqual(self.script(top), 0, "what is found begins there")
        self.search("")
        self.check_width()


class DiffTest(HtmlTest):
    def test_says_what_changed(self):
        page = self.folder / "diff.html"
        before, after = self.recording("pool"), self.recording("hostile")
        run(COWTOP, "diff", before, after, "--html", page, stderr=subprocess.DEVNULL)
        diff = json.loads(run(COWTOP, "diff", "--json", before, after,
                              stderr=subprocess.DEVNULL).stdout)
        self.open(page)
        self.assertEqual(self.data(".tiles"), {"before": str(diff["total"]["before"]),
                                               "after": str(diff["total"]["after"])})
        for side in (before, after):
            self.assertIn(str(side), self.text(".facts"))
        for panel in ("processes", "objects", "sites", "mappings", "types"):
            self.assertEqual(len(self.rows(panel)), len(diff[panel]))
        self.assertEqual(len(self.rows("new")), len(diff["process_new_bytes"]))
        self.search("table")
        self.assertEqual([row[0] for row in self.rows("objects")], ["index/table (app::Table)"])
        self.assertEqual(self.rows("sites"), [])
        self.search("")
        self.check_width()


if __name__ == "__main__":
    if webdriver is None or DRIVER is None:
        print("Debian's packages chromium-driver and python3-selenium are not installed")
        sys.exit(SKIPPED)
    unittest.main()
