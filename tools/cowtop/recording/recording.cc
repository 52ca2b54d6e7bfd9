#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/recording/json_fields.h>
#include <cowshed/tools/cowtop/recording/recording.h>
#include <cowshed/tools/cowtop/recording/untrusted_json.h>

namespace cowshed::cowtop {

COWSHED_JSON_STRUCT(RecordingHeader, cowtop, command, attached_pid, selection, kernel, cpus,
                    started_s)

namespace {

constexpr const char* kRecordingSchema = "cowshed.recording/1";
constexpr const char* kSchemaOfAnyVersion = "cowshed.recording/";
constexpr const char* kAnotherFollows =
    "is followed by another recording, of which nothing is read (keep each in a file of its own)";

tl::unexpected<Error> bad(const std::string& path, const std::string& what) {
  return make_error(ErrorCode::bad_recording, path + ": " + what);
}

bool is_header(const Json& line) {
  const auto schema = line.is_object() ? line.find("schema") : line.end();
  return schema != line.end() && schema->is_string() &&
         schema->get_ref<const std::string&>().starts_with(kSchemaOfAnyVersion);
}

}  // namespace

Json to_json(const RecordingHeader& header) {
  Json object = {{"schema", kRecordingSchema}};
  FieldWriter io(object, header, Derived::with);
  describe(io, Type<RecordingHeader>{});
  return object;
}

Expected<Recording> Recording::open(const std::string& path) {
  TRY(auto file, InputFile::open(path));
  return open(std::move(file));
}

Expected<Recording> Recording::open(InputFile file) {
  const std::string path = file.path();
  TRY(auto lines, ZstdLineReader::open(std::move(file)));
  Recording recording(std::move(lines));
  TRY(const auto line, recording.lines_.next());
  if (recording.lines_.is_empty()) return bad(path, "is empty: nothing was recorded");
  if (!line) return bad(path, "is no recording of cowtop's, or its beginning is damaged");
  try {
    const Json object = parse_untrusted(*line);
    std::string schema;
    read_field(object, "", "schema", schema);
    if (!schema.starts_with(kSchemaOfAnyVersion)) return bad(path, "is no recording of cowtop's");
    read_struct(object, "", recording.header_);
    if (schema != kRecordingSchema) {
      return bad(path, "was written as " + schema + " by cowtop " + recording.header_.cowtop +
                           ", and this cowtop reads " + kRecordingSchema + ": use a newer one");
    }
  } catch (const Json::exception&) {
    return bad(path, "is no recording of cowtop's");
  } catch (const JsonFieldError& error) {
    return bad(path, std::string("is damaged: ") + error.what());
  }
  return recording;
}

Expected<bool> Recording::next() {
  if (!problem_.empty()) return false;
  if (ended_) return look_behind_the_end();
  TRY(auto line, lines_.next());
  if (!line) {
    problem_ = lines_.damage();
    return false;
  }
  try {
    weight_ += weight_of(*line);
    Json object = parse_untrusted(*line);
    line.reset();
    if (is_header(object)) {
      problem_ = std::string("has no end, and ") + kAnotherFollows;
      return false;
    }
    patch(std::move(object.at("patch")));
    read_field(object, "", "ended", ended_);
    read_field(object, "", "exit_status", exit_status_);
  } catch (const Json::exception&) {
    problem_ = "is damaged: an interval does not fit what came before";
    return false;
  } catch (const JsonFieldError& error) {
    problem_ = std::string("is damaged: ") + error.what();
    return false;
  }
  return true;
}

void Recording::patch(Json operations) {
  is_torn_ = true;
  for (Json& each : operations) apply(state_, each);
  // Parts that were weighed may have been replaced since.
  if (weight_ > kMostWeight) weight_ = weight_of(state_.dump());
  if (weight_ > kMostWeight) throw_too_large();
  is_torn_ = false;
}

// Returns false, which next() returns at the end.
Expected<bool> Recording::look_behind_the_end() {
  TRY(const auto line, lines_.next());
  if (!line && lines_.damage().empty()) return false;
  problem_ = "goes on behind its end with what is no recording of cowtop's";
  try {
    if (line && is_header(parse_untrusted(*line))) problem_ = kAnotherFollows;
  } catch (const Json::exception&) {  // no JSON
  } catch (const JsonFieldError&) {   // too large or too deep
  }
  return false;
}

Expected<cow::Measurement> Recording::measurement() const {
  if (is_torn_) return make_error(ErrorCode::bad_recording, problem_);
  return measurement_of(state_);
}

std::string Recording::why_not_whole() const {
  return problem_.empty() ? "has no end: cowtop was killed, could not write on, or is still at it"
                          : problem_;
}

Expected<cow::Measurement> last_measurement(Recording& recording, const std::string& path,
                                            const std::function<void(const Json&)>& at_each) {
  std::size_t intervals = 0;
  for (;;) {
    TRY(const auto more, recording.next());
    if (!more) break;
    ++intervals;
    at_each(recording.document());
  }
  if (intervals == 0) {
    return make_error(
        ErrorCode::bad_recording,
        path + ": " +
            (recording.problem().empty() ? "nothing was recorded, only begun"
                                         : recording.problem() + " before the first interval"));
  }
  auto measurement = recording.measurement();
  if (!measurement) {
    measurement.error().message =
        path + (recording.is_torn() ? ": " : ": is damaged: ") + measurement.error().message;
  }
  return measurement;
}

}  // namespace cowshed::cowtop
