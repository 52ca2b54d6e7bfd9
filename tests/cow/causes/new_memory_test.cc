#include <cowshed/cow/cause_names.h>
#include <cowshed/cow/causes/new_memory.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

Frame python(const std::string& function, const std::string& file, int line = 1) {
  return {function, file, line, "", 0, false, true};
}

Frame native(const std::string& function, const std::string& module = "") {
  return {function, "", 0, module, 0, false};
}

const Frame import = python("_find_and_load", "<frozen importlib._bootstrap>");
const Frame loader = python("exec_module", "<frozen importlib._bootstrap_external>");
const Frame task = python("task", "/app/shop.py", 7);
const Frame start = python("<module>", "/app/shop.py", 20);

std::string cause(const std::vector<Frame>& stack, std::size_t imports = 0,
                  NewPage page = NewPage::held) {
  const NewMemoryCause found = cause_of_new_memory(stack, imports, page);
  EXPECT_NE(std::ranges::find(kNewMemoryCauses, found.kind), kNewMemoryCauses.end()) << found.kind;
  return name_of(found);
}

TEST(NewMemory, AnImportIsOfTheOutermostModule) {
  const Frame provider = python("<module>", "/lib/provider.py", 3);
  const Frame package = python("<module>", "/lib/models/__init__.py", 3);
  EXPECT_EQ(cause({provider, loader, import, task, start}), "import of provider");
  EXPECT_EQ(cause({provider, loader, import, package, loader, import, task, start}),
            "import of models");
  EXPECT_EQ(cause({python("make", "/lib/provider.py"), provider, loader, import, task}),
            "import of provider");
  EXPECT_EQ(cause({loader, import, task, start}), "import at shop.py:7") << "of no code yet";
}

TEST(NewMemory, AModuleHasTheNameThatImportsIt) {
  const auto module = [](const std::string& file) {
    return cause({python("<module>", file), loader, import, task, start});
  };
  EXPECT_EQ(module("/opt/lib/python3.11/site-packages/numpy/testing/__init__.py"),
            "import of numpy.testing");
  EXPECT_EQ(module("/app/site-packages/acme/plugins/big.py"), "import of acme.plugins.big");
  EXPECT_EQ(module("/usr/lib/python3/dist-packages/yaml/__init__.py"), "import of yaml");
  EXPECT_EQ(module("/usr/lib/python3.11/email/mime/text.py"), "import of email.mime.text");
  EXPECT_EQ(module("/usr/lib64/python3.13t/json/__init__.py"), "import of json");
  EXPECT_EQ(module("/usr/lib/python3.11/lib-dynload/_json.cpython-311-x86_64-linux-gnu.so"),
            "import of _json");
  EXPECT_EQ(module("/x/site-packages/acme-1.0-py3.11.egg/acme/big.py"), "import of acme.big");
  EXPECT_EQ(module("/home/python3/shop/models.py"), "import of models");
  EXPECT_EQ(module("/home/shop/views/__init__.py"), "import of views");
  EXPECT_EQ(module("models.py"), "import of models");
  EXPECT_EQ(module("__init__.py"), "import of __init__");
}

TEST(NewMemory, AnImportByImportlibIsOneAtItsCallersLine) {
  const Frame by_name = python("import_module", "/usr/lib/python3.11/importlib/__init__.py", 126);
  const Frame provider = python("<module>", "/lib/provider.py", 3);
  const Frame hook = python("Hook.exec_module", "/app/hook.py", 5);
  const Frame text = python("<module>", "<string>");
  EXPECT_EQ(cause({loader, import, by_name, task, start}), "import at shop.py:7");
  EXPECT_EQ(cause({provider, loader, import, by_name, task, start}), "import of provider");
  EXPECT_EQ(cause({provider, hook, import, task, start}), "import of provider");
  EXPECT_EQ(cause({text, loader, import, task, start}), "import at shop.py:7");
}

TEST(NewMemory, AnImportInWhichTheProgramForkedIsNone) {
  const std::vector<Frame> fork = {start, loader, import, python("<module>", "/app/run.py")};
  EXPECT_EQ(imports_in(fork), 1);
  EXPECT_EQ(cause({task, start, loader, import, python("<module>", "/app/run.py")}, 1), "own data");
  const Frame provider = python("<module>", "/lib/provider.py", 3);
  EXPECT_EQ(cause({provider, loader, import, task, start, loader, import}, 1),
            "import of provider");
}

TEST(NewMemory, OtherCausesNeedTheirFunctions) {
  EXPECT_EQ(cause({native("_Unpickler_Read"), task}), "received");
  EXPECT_EQ(cause({native("[recvfrom(2)]"), task}), "received");
  EXPECT_EQ(cause({native("malloc"), python("_ConnectionBase.recv",
                                            "/usr/lib/python3.11/multiprocessing/connection.py")}),
            "received");
  EXPECT_EQ(cause({python("SimpleQueue.get", "/usr/lib/python3.11/multiprocessing/queues.py")}),
            "received");
  EXPECT_EQ(cause({python("pickle_loads", "/usr/lib/python3/dist-packages/billiard/common.py")}),
            "received");
  EXPECT_EQ(cause({python("SerializerRegistry.loads", "/kombu/serialization.py")}), "received");
  EXPECT_EQ(cause({native("[read(2)]"), task}), "loaded");
  EXPECT_EQ(cause({native("malloc"), native("[read(2)]")}), "own data") << "not the innermost";
  EXPECT_EQ(cause({native("__memmove_avx"), native("_IO_file_xsgetn"), native("fread")}), "loaded");
  EXPECT_EQ(cause({}), "own data");
  EXPECT_EQ(cause({import}, 0, NewPage::of_stack), "thread stack");
  EXPECT_EQ(cause({import}, 0, NewPage::free), "free in malloc");
  EXPECT_EQ(cause({import}, 0, NewPage::free_in_pymalloc), "free in pymalloc");
  EXPECT_EQ(cause({task}, 0, NewPage::given_back), "given back since");
  EXPECT_EQ(cause({native("[read(2)]"), task}, 0, NewPage::given_back), "loaded");
}

TEST(NewMemory, NobodyReceivesBecauseOfTheNameOfAFileOrAFunction) {
  const auto in = [](const std::string& function, const std::string& file) {
    return cause({python(function, file), task});
  };
  EXPECT_EQ(in("load_catalogue", "/app/serialization.py"), "own data");
  EXPECT_EQ(in("Table.get", "/app/queues.py"), "own data");
  EXPECT_EQ(in("recv_defaults", "connection.py"), "own data");
  EXPECT_EQ(in("loads", "/app/pickle.py"), "own data");
  EXPECT_EQ(in("Queue.get", "/usr/lib/python3.11/asyncio/queues.py"), "own data");
  EXPECT_EQ(in("load", "/usr/lib/python3/dist-packages/shop/serialization.py"), "own data");
  EXPECT_EQ(cause({native("_pickle_dumps"), task}), "own data");
  EXPECT_EQ(cause({native("_pickle_loads"), task}), "received");
  EXPECT_EQ(cause({native("ReadItem", "/app/shop")}), "own data");
  EXPECT_EQ(cause({native("ReadItem", "/usr/lib/R/lib/libR.so")}), "received");
}

TEST(NewMemory, IsCompiledCodeBelowACompilerButNotBelowTheCodeThatItRuns) {
  const Frame perl = native("Perl_yyparse");
  EXPECT_EQ(cause({native("malloc"), perl, native("Perl_runops_standard")}), "compiled code");
  EXPECT_EQ(cause({native("malloc"), native("Perl_runops_standard"), perl}), "own data")
      << "a BEGIN block";
  EXPECT_EQ(cause({native("rb_iseq_new_with_opt"), native("rb_vm_exec")}), "compiled code");
  EXPECT_EQ(cause({native("rb_vm_exec"), native("rb_iseq_eval_main")}), "own data");
  EXPECT_EQ(cause({native("pm_parser_init", "/usr/lib/libruby.so.3.4")}), "compiled code");
  EXPECT_EQ(cause({native("compile_file", "/usr/bin/php8.2")}), "compiled code");
  EXPECT_EQ(cause({native("compile_file", "/usr/bin/cc1"), native("pm_add", "/usr/bin/cc1")}),
            "own data");
  EXPECT_EQ(cause({native("_PyPegen_run_parser"), task}), "compiled code");
  EXPECT_EQ(cause({native("Py_CompileStringObject"), task}), "compiled code");
  EXPECT_EQ(cause({python("parse", "/usr/lib/python3.11/ast.py"), task}), "compiled code");
  EXPECT_EQ(cause({python("parse", "/app/ast.py"), task}), "own data");
}

TEST(NewMemory, ItsMakerIsTheInnermostLibraryThatWorks) {
  const Frame malloc = native("malloc", "/lib/libc.so.6");
  const Frame arena = native("arena_new", "/usr/lib/libjemalloc.so.2");
  const Frame page = native("", "/usr/lib/libsqlite3.so.0.8.6");
  const Frame module = native("", "/usr/lib/python3.11/lib-dynload/_sqlite3.cpython-311.so");
  const Frame lxml = native("", "/x/site-packages/lxml/etree.cpython-311-x86_64-linux-gnu.so");
  const Frame blas = native("", "/x/site-packages/numpy.libs/libopenblas64_p-r0-2.3.23.so");
  const Frame eval = native("_PyEval_EvalFrame", "/usr/bin/python3.11");
  EXPECT_EQ(maker_of({malloc, arena, page, module, task}), "libsqlite3.so.0.8.6");
  EXPECT_EQ(maker_of({malloc, lxml, task}), "lxml.etree");
  EXPECT_EQ(maker_of({blas, task}), "libopenblas64_p-r0-2.3.23.so");
  EXPECT_EQ(maker_of({malloc, module, eval, task}), "") << "Python does what the line says";
  EXPECT_EQ(maker_of({malloc, native("zend_new", "/usr/sbin/php-fpm8.2")}), "php-fpm8.2");
  EXPECT_EQ(maker_of({malloc, {"load", "load.cc", 3, "/opt/libshop.so", 0, false}}), "")
      << "a line of a library of the program's own";
  EXPECT_EQ(maker_of({}), "");
}

TEST(NewMemory, ADescriptorTellsWhatIsReceivedFromWhatIsLoaded) {
  for (const char* call :
       {"[read(2)]", "[readv(2)]", "[pread64(2)]", "[preadv(2)]", "[preadv2(2)]"}) {
    const auto cause_of = [&](Descriptor descriptor) {
      const std::vector<Frame> stack = {native(call), native("fread")};
      return cause_of_new_memory(stack, 0, NewPage::held, descriptor).kind;
    };
    EXPECT_EQ(cause_of(Descriptor::stream), "received") << call;
    EXPECT_EQ(cause_of(Descriptor::file), "loaded") << call;
    EXPECT_EQ(cause_of(Descriptor::none), "loaded") << call;
    EXPECT_EQ(cause_of(Descriptor::other), "own data") << call;
  }
  const NewMemoryCause futex =
      cause_of_new_memory({native("[futex(2)]")}, 0, NewPage::held, Descriptor::stream);
  EXPECT_EQ(futex.kind, "own data");
}

}  // namespace
}  // namespace cowshed::cow
