#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <fmt/ranges.h>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/analysis/new_evidence.h>
#include <cowshed/tools/cowtop/analysis/remedies.h>
#include <cowshed/tools/cowtop/cli/command_line.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/commands/commands.h>
#include <cowshed/tools/cowtop/io/output_file.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/text/causes.h>
#include <cowshed/tools/cowtop/text/display_width.h>
#include <cowshed/tools/cowtop/text/glossary.h>

namespace cowshed::cowtop {
namespace {

constexpr const char* kHelpDescription = "Explains a word of cowtop's reports, or a subcommand.";
constexpr const char* kHelpUsage = "cowtop help [WORD|SUBCOMMAND]";
constexpr const char* kHelpFooter = R"(Examples:
  cowtop help                  the words that there are
  cowtop help still shared
  cowtop help "reference count"
  cowtop help record           as cowtop record --help
  cowtop help --json           every word, remedy and limit, for a machine to read

A part of a word, or a misspelt word, is explained if only one word is like it.

Exit status: 0; 125 if there is no such word, or bad usage.)";

std::string all_words() {
  constexpr int kColumns = 80;
  std::string words;
  for (const Term& term : glossary()) words += (words.empty() ? "" : ", ") + std::string(term.word);
  std::string text;
  for (const std::string& line : live::wrap(words, kColumns)) text += line + "\n";
  return text;
}

std::string paragraph(const Term& term) {
  constexpr int kColumns = 78;
  constexpr int kTitleColumns = 5;
  std::string text = std::string(term.word) + "\n";
  for (const std::string& line : live::wrap(term.meaning, kColumns)) text += "  " + line + "\n";
  std::string_view title = "TRY";
  for (const std::string& remedy : remedy_lines(term.word))
    for (const std::string& line : live::wrap(remedy, kColumns - kTitleColumns))
      text += fmt::format("  {:<{}}{}\n", std::exchange(title, ""), kTitleColumns, line);
  return text;
}

Json or_null(std::string_view text) { return text.empty() ? Json(nullptr) : Json(text); }

std::string everything_json() {
  Json report;
  for (const Term& each : glossary())
    report["words"].push_back({{"word", each.word}, {"meaning", each.meaning}});
  for (const Cause& each : causes())
    report["causes"].push_back({{"cause", each.name}, {"try", remedy_lines(each.name)}});
  for (const Remedy& each : remedies()) {
    Json languages = Json::array();
    for (const cow::Language language : each.in) languages.push_back(title_of(language));
    report["remedies"].push_back(
        {{"cause", each.cause},
         {"is_of_program", is_of_program(each)},
         {"languages", std::move(languages)},
         {"text", or_null(each.text)},
         {"cure", or_null(each.cure == nullptr ? "" : each.cure->name)},
         {"tried_where", or_null(each.cure == nullptr ? "" : each.cure->tried_where)},
         {"no_proof", or_null(each.no_proof)}});
  }
#define COWSHED_JUDGEMENT(name, value, sentence) report["judgements"].push_back(sentence);
  COWSHED_JUDGEMENTS(COWSHED_JUDGEMENT)
#undef COWSHED_JUDGEMENT
  return text_of(report);
}

// The terms that contain the word, or that it contains and no longer one does; else those that it
// is when it is misspelt.
std::vector<const Term*> like(const std::string& word) {
  constexpr std::size_t kLettersForAnError = 3;
  const auto lower = [](std::string_view text) {
    std::string result(text);
    std::ranges::transform(text, result.begin(),
                           [](unsigned char each) { return std::tolower(each); });
    return result;
  };
  std::vector<const Term*> related;
  std::vector<const Term*> misspelt;
  for (const Term& term : glossary()) {
    if (live::contains(term.word, word) || live::contains(word, term.word))
      related.push_back(&term);
    if (edits(lower(word), lower(term.word)) * kLettersForAnError <= word.size())
      misspelt.push_back(&term);
  }
  std::erase_if(related, [&](const Term* each) {
    return std::ranges::any_of(related, [&](const Term* other) {
      return other != each && live::contains(word, other->word) &&
             live::contains(other->word, each->word);
    });
  });
  return related.empty() ? misspelt : related;
}

std::string listed(const std::vector<const Term*>& terms) {
  std::string words;
  for (const Term* term : terms)
    words += (words.empty() ? "; there are: " : ", ") + std::string(term->word);
  return words.empty() ? "; cowtop help lists them" : words;
}

}  // namespace

Expected<int> help_command(std::vector<std::string> words) {
  CommandLine line({"cowtop help", kHelpDescription, kHelpUsage, kHelpFooter});
  std::vector<std::string> asked;
  bool json = false;
  CLI::Option* const option = line.app().add_option("WORD", asked, "A word of a report");
  line.app()
      .add_flag("--json", json, "One JSON object with every word, cause, remedy and limit")
      ->excludes(option);
  TRY(const auto status, line.parse(std::move(words)));
  if (status) return *status;
  const std::string word = fmt::format("{}", fmt::join(asked, " "));
  const Term* term = find_term(word);
  if (!asked.empty() && term == nullptr) {
    const std::vector<const Term*> terms = like(word);
    if (terms.size() != 1) return wrong(word + ": no word of the reports" + listed(terms));
    term = terms.front();
  }
  TRY(auto file, OutputFile::open(""));
  TRY_VOID(file.write_report(json              ? everything_json()
                             : term == nullptr ? all_words()
                                               : paragraph(*term)));
  return 0;
}

}  // namespace cowshed::cowtop
