#include <cowshed/cow/language.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

TEST(Language, IsTheNameOfAnInterpreterAndAVersion) {
  for (const char* name : {"/usr/bin/python", "python3.13t", "libpython3.12.so.1.0"})
    EXPECT_EQ(language_of_file(name), Language::python) << name;
  for (const char* name : {"python3.11", "libpython3.9.so"})
    EXPECT_EQ(language_of_file(name), Language::old_python) << name;
  for (const char* name : {"php", "php-fpm8.2", "/usr/sbin/php-cgi", "libphp8.2.so"})
    EXPECT_EQ(language_of_file(name), Language::php) << name;
  EXPECT_EQ(language_of_file("libruby-3.1.so.3.1"), Language::ruby);
  for (const char* name : {"python3-config-server", "pythonista", "pythonic", "perlin", "phpish",
                           "rubynoise", "node_exporter", "php-exporter", "perls", "luas", "node-1",
                           "rubyx", "beamformer", "/opt/python/server"}) {
    EXPECT_EQ(language_of_file(name), Language::native) << name;
  }
}

TEST(Language, AScriptIsWhatAnInterpreterRuns) {
  using namespace std::string_view_literals;
  struct Given {
    std::string_view cmdline;
    std::string_view comm;
    std::string_view script;
  };
  for (const auto& [cmdline, comm, script] : {
           Given{"/usr/bin/python3\0-u\0/srv/app.py\0--token\0X"sv, "python3", "python3 app.py"},
           Given{"python3\0-m\0uvicorn\0shop:app"sv, "python3", "python3 -m uvicorn"},
           Given{"python3\0/usr/bin/uvicorn\0shop:app"sv, "uvicorn", "uvicorn shop:app"},
           Given{"python3\0/usr/bin/uvicorn\0--reload"sv, "uvicorn", ""},
           Given{"python3\0-c\0from multiprocessing.spawn import spawn_main; spawn_main(5)"sv,
                 "python3", "python3 -c multiprocessing.spawn"},
           Given{"python3\0x"sv, "python3", "python3 x"},
           Given{"python3\0-m"sv, "python3", ""},
           Given{"python3\0-c\0key='secret'; run(key)"sv, "python3", ""},
           Given{"node\0/opt/server.js"sv, "node", "node server.js"},
           Given{"/bin/sh\0run.sh"sv, "sh", "sh run.sh"},
           Given{"gcc\0-c\0a.c"sv, "gcc", ""},
           Given{"python3"sv, "python3", ""},
           Given{""sv, "x", ""},
       })
    EXPECT_EQ(script_of(cmdline, comm), script) << comm;
}

ProcessCopies process_of(pid_t pid, pid_t parent, const char* comm, std::vector<CodeSite> sites) {
  ProcessCopies process;
  process.pid = pid;
  process.ppid = parent;
  process.comm = comm;
  process.role = pid == 1 ? Role::root : Role::child;
  process.start_ns = static_cast<std::uint64_t>(pid);
  process.sampled.emplace().sites = std::move(sites);
  return process;
}

CodeSite site(std::uint64_t copies, const char* function, const char* module) {
  CodeSite result;
  result.estimated_copies = copies;
  result.stack = {{function, "", 0, module, 0, false}};
  return result;
}

TEST(Language, OfAProcessIsThatOfItsSamplesOrItsNameOrItsParent) {
  Measurement measurement;
  measurement.processes = {
      process_of(1, 0, "gunicorn", {site(9, "f", "/usr/bin/python3.11"), site(50, "g", "a.out")}),
      process_of(2, 1, "worker", {}),
      process_of(3, 2, "perl", {}),
      process_of(4, 1, "pythonic", {site(1, "caml_major", "/opt/app")}),
      process_of(5, 2, "server", {}),
  };
  measurement.processes[4].execs = 1;
  EXPECT_THAT(languages_of(measurement),
              ElementsAre(Language::old_python, Language::old_python, Language::perl,
                          Language::ocaml, Language::native));
}

// The one of an interpreter's process whose code is of these functions.
Language of_functions(const std::vector<Frame>& stack) {
  CodeSite code = site(1, "", "");
  code.stack = stack;
  Measurement measurement;
  measurement.processes = {process_of(1, 0, "server", {code})};
  return languages_of(measurement).front();
}

TEST(Language, OfARenamedInterpreterIsToldByItsFunctions) {
  EXPECT_EQ(of_functions({{"Perl_pp_iter", "", 0, "/srv/gateway"}}), Language::perl);
  EXPECT_EQ(of_functions({{"rb_vm_exec", "", 0, "/srv/web"}, {"ruby_run_node", "", 0, "/srv/web"}}),
            Language::ruby);
  EXPECT_EQ(of_functions({{"zend_hash_find", "", 0, "/srv/web"}}), Language::php);
  EXPECT_EQ(of_functions({{"Rf_eval", "", 0, "/srv/web"}}), Language::r);
  EXPECT_EQ(of_functions({{"rb_insert", "", 0, "/srv/tree"}}), Language::native);
}

TEST(Language, OfARenamedPythonIsOldUnlessItsLibraryHasANewVersion) {
  const auto of_file = [](const char* file) {
    return of_functions({{"run", file, 1, "/srv/app", 0, false, true}});
  };
  EXPECT_EQ(of_file("/usr/lib/python3.13/threading.py"), Language::python);
  EXPECT_EQ(of_file("/usr/lib/python3.11/threading.py"), Language::old_python);
  EXPECT_EQ(of_file("/srv/app/run.py"), Language::old_python);
}

}  // namespace
}  // namespace cowshed::cow
