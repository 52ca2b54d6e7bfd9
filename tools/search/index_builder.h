#pragma once

#include <algorithm>
#include <charconv>
#include <string>

#include <cowshed/tools/search/depends.h>
#include <cowshed/tools/search/index.h>
#include <cowshed/tools/search/stanza.h>
#include <cowshed/tools/search/words.h>

namespace cowshed::search {

// Fills an index from the texts of package lists: add_list() for each, then finish().
template <class Storage>
class IndexBuilder {
 public:
  IndexBuilder(const Storage& storage, Index<Storage>& index) : storage_(storage), index_(index) {}

  // At most `limit` records in all; 0 is no limit.  Errors: those of StanzaReader.
  Expected<void> add_list(std::string_view text, const std::string& source, std::size_t limit) {
    StanzaReader reader(text, source);
    Stanza stanza;
    while (limit == 0 || index_.records.size() < limit) {
      const auto more = reader.next(stanza);
      if (!more) {
        return tl::make_unexpected(more.error());
      }
      if (!*more) {
        break;
      }
      add(stanza);
    }
    return {};
  }

  // Turns the names in Depends into references, when all that they may name is there.
  void finish() {
    const auto exists = [&](std::string_view name) {
      return look_up(index_.by_name, name) != nullptr;
    };
    for (const auto& package : index_.records) {
      const auto add = [&](std::string_view name) {
        const auto& needed = *look_up(index_.by_name, name);
        package->depends.push_back(needed);
        ++needed->wanted_by;
      };
      for (const std::string_view field : {"Pre-Depends", "Depends"}) {
        if (const String* names = look_up(package->more, field)) {
          for_each_dependency(*names, exists, add);
        }
      }
    }
  }

 private:
  using PackageRef = typename Index<Storage>::PackageRef;

  void add(const Stanza& stanza) {
    const PackageRef package = storage_.template make_shared<Package<Storage>>();
    for (const Field& field : stanza.fields()) {
      set_field(*package, field);
    }
    package->maintainer = join(index_.maintainers, stanza["Maintainer"], package);
    package->section = join(index_.sections, stanza["Section"], package);
    for (const std::string& word : words_about(stanza)) {
      entry(index_.by_word, word).push_back(package);
    }
    index_.by_name.emplace(package->name, package);
    index_.records.push_back(package);
  }

  static void set_field(Package<Storage>& package, const Field& field) {
    if (field.name == "Package") {
      package.name = field.value;
    } else if (field.name == "Version") {
      package.version = field.value;
    } else if (field.name == "Description") {
      package.description = field.value;
    } else if (field.name == "Installed-Size") {
      std::from_chars(field.value.data(), field.value.data() + field.value.size(),
                      package.installed_kib);
    } else {
      package.more.emplace(field.name, field.value);
    }
  }

  // The value at the key, made if it is not there yet.
  template <class Value>
  static Value& entry(ByText<Value>& map, std::string_view key) {
    const auto found = map.find(key);
    return found != map.end() ? found->second : map[String(key, map.get_allocator())];
  }

  auto join(ByText<typename Storage::template Ref<Group<Storage>>>& groups, std::string_view name,
            const PackageRef& package) {
    const std::string_view key = name.empty() ? "(none)" : name;
    auto found = groups.find(key);
    if (found == groups.end()) {
      found = groups.emplace(key, storage_.template make_shared<Group<Storage>>(key)).first;
    }
    found->second->members.push_back(package);
    return found->second;
  }

  static std::vector<std::string> words_about(const Stanza& stanza) {
    std::vector<std::string> words;
    for (const std::string_view field : {"Package", "Description", "Tag"}) {
      for (std::string& word : words_of(stanza[field])) {
        words.push_back(std::move(word));
      }
    }
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    return words;
  }

  const Storage& storage_;
  Index<Storage>& index_;
};

}  // namespace cowshed::search
