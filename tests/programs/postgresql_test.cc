#include <csignal>
#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <iostream>

#include <cowshed/tests/programs/real_program.h>

namespace cowshed::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

constexpr const char* kPostgres = "/usr/lib/postgresql/15/bin/postgres";
constexpr const char* kInitdb = "/usr/lib/postgresql/15/bin/initdb";
constexpr const char* kPsql = "/usr/bin/psql";

class PostgreSql : public RealProgram {
 protected:
  PostgreSql() : RealProgram({kPostgres, kInitdb, kPsql}) {}
};

std::vector<std::string> as_postgres(std::vector<std::string> command) {
  std::vector<std::string> whole = {"/usr/bin/setpriv", "--reuid=postgres", "--regid=postgres",
                                    "--clear-groups", "--"};
  whole.insert(whole.end(), command.begin(), command.end());
  return whole;
}

// A backend, from its fork to its end: at exit it releases OpenSSL's objects, which the postmaster
// had made.
TEST_F(PostgreSql, ABackendCopiesMostWhenItExits) {
  const std::string data = file("data");
  std::filesystem::permissions(folder(), std::filesystem::perms::all);
  const Finished made = run(as_postgres({kInitdb, "-N", "-A", "trust", "-D", data}));
  ASSERT_EQ(made.exit_status(), 0) << made.err;

  Subprocess server(cowtop(
      as_postgres({kPostgres, "-D", data, "-k", folder(), "-c", "listen_addresses="}), kEach));
  server.read_until("ready to accept connections");
  Subprocess client(
      as_postgres({kPsql, "-h", folder(), "-d", "postgres", "-qtA", "-c",
                   "create temp table t as select generate_series(1, 20000)::text s", "-c",
                   "select sum(length(s)) from t", "-c", "select 'ready ' || pg_backend_pid()",
                   "-c", "select pg_sleep(120)"}));
  std::string said = client.read_until("ready ").out;
  said += client.read_until("\n").out;
  const pid_t backend = pid_of(said);
  ASSERT_GT(backend, 0) << said;
  const auto before_its_end = static_cast<double>(wpcopy_count(backend).value_or(0));
  ::kill(backend, SIGTERM);
  client.finish();
  ::kill(server.pid(), SIGINT);
  const MeasuredRun measured = finish(server);
  const Json& ours = measured.process(backend);
  ASSERT_TRUE(ours.is_object());
  show("postgres backend", measured, backend);
  const double all = measured.copies(backend);
  std::cout << "  before its end: " << before_its_end << " by taskstats\n";
  EXPECT_LT(before_its_end, all / 2);
  double at_its_end = 0;
  for (const Json& site : ours.at("sites")) {
    if (calls(site, "proc_exit")) at_its_end += site.at("estimated_copies").get<double>();
  }
  EXPECT_LE(at_its_end, all - before_its_end);
  for (const std::size_t i : {0U, 1U, 2U}) {
    EXPECT_TRUE(calls(ours.at("sites").at(i), "proc_exit")) << ours.at("sites").at(i);
  }
  EXPECT_THAT(places(ours, 3), UnorderedElementsAre(StartsWith("OPENSSL_LH_flush (libcrypto"),
                                                    StartsWith("EVP_CIPHER_free (libcrypto"),
                                                    "proc_exit (postgres)"));
  EXPECT_EQ(mappings(ours, 1), std::vector<std::string>{"[heap]"});
  EXPECT_THAT(mappings(ours, 3),
              UnorderedElementsAre("[heap]", "anonymous", HasSubstr("postgres .bss")));
  EXPECT_EQ(patterns(ours).at(0), "unknown");
  std::vector<std::string> named = patterns(ours);
  std::erase(named, "unknown");
  EXPECT_EQ(named.at(0), "allocator free list");
  EXPECT_EQ(named.at(1), "reference count");
  for (const Json& process : measured.report.at("processes")) {
    if (process.at("role") != "root") continue;
    EXPECT_EQ(patterns(process).at(0), "relocation");
  }
}

}  // namespace
}  // namespace cowshed::test
