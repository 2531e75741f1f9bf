#include "counter.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>

#include "common/cuda/launch.h"

namespace cvf::traffic {
namespace {

constexpr int64_t kSector = 32, kFirstCache = 64 * 1024;  // bytes; of the first cache, what a block is taken to have
constexpr int kLanes = 32, kBanks = 32, kWord = 4;
constexpr size_t kPlaces = 4096;  // instructions that access memory, at most

// An instruction as a warp carries it out: the addresses of its lanes.
struct Request {
  std::array<uintptr_t, kLanes> address;
  int lanes = 0;
  uint32_t bytes = 0;
  bool writes = false;
};

// An instruction of a warp, each time that it is carried out between two barriers of the block. Lanes that have done it
// equally often are taken to do it together.
struct Site {
  std::array<uint32_t, kLanes> times{};
  std::vector<Request> requests;
  size_t used = 0;
};

struct Warp {
  std::vector<Site> sites;
  int64_t exchanges = 0;
};

struct Region {
  uintptr_t begin, end;
  std::vector<uint8_t> seen, written;  // of each sector, in the call
  std::vector<int64_t> loaded;         // the last block that has loaded a sector
  std::vector<int64_t> asked;          // the last request for a sector
};

class Counter final : public cuda::Observer {
 public:
  void add(const void* data, size_t bytes) {
    const auto begin = reinterpret_cast<uintptr_t>(data);
    const size_t sectors = (bytes + kSector - 1) / kSector;
    regions_.push_back({begin, begin + bytes, std::vector<uint8_t>(sectors), std::vector<uint8_t>(sectors),
                        std::vector<int64_t>(sectors, -1), std::vector<int64_t>(sectors, -1)});
  }

  std::vector<Launch> finish() {
    regions_.clear();
    return std::move(launches_);
  }

  void launch(const void* kernel, dim3 grid, int threads, size_t shared_bytes) override {
    Dl_info found{};
    const bool named = dladdr(kernel, &found) != 0 && found.dli_sname != nullptr;
    Launch next{.kernel = named ? found.dli_sname : "?",
                .blocks = static_cast<int64_t>(grid.x) * grid.y,
                .threads = threads,
                .shared_bytes = static_cast<int64_t>(shared_bytes)};
    launches_.push_back(next);
    warps_.assign(static_cast<size_t>((threads + kLanes - 1) / kLanes), {});
  }

  void block_begins(const void* shared) override {
    shared_begin_ = reinterpret_cast<uintptr_t>(shared);
    shared_end_ = shared_begin_ + static_cast<uintptr_t>(launches_.back().shared_bytes);
    ++block_;
    distinct_ = loads_ = barriers_ = round_trips_ = 0;
    for (Warp& warp : warps_) warp.exchanges = 0;
    counts_ = true;
  }

  void block_ends() override {
    end_phase();
    counts_ = false;
    Launch& launch = launches_.back();
    launch.l2 += (distinct_ * kSector <= kFirstCache ? distinct_ : loads_) * kSector;
    launch.barriers = std::max(launch.barriers, barriers_);
    launch.round_trips = std::max(launch.round_trips, round_trips_);
    for (const Warp& warp : warps_) launch.exchanges = std::max(launch.exchanges, warp.exchanges);
  }

  void met(int warp) override {
    if (warp >= 0) {
      ++warps_[static_cast<size_t>(warp)].exchanges;
      return;
    }
    ++barriers_;
    end_phase();
  }

  void access(const void* place, const void* data, uint32_t bytes, bool writes) {
    if (!counts_) return;
    const auto address = reinterpret_cast<uintptr_t>(data);
    const bool shared = address >= shared_begin_ && address < shared_end_;
    if (!shared && region_of(address) == nullptr) return;
    Warp& warp = warps_[threadIdx.x / kLanes];
    const size_t number = number_of(place);
    if (number >= warp.sites.size()) warp.sites.resize(number + 1);
    Site& site = warp.sites[number];
    const size_t time = site.times[threadIdx.x % kLanes]++;
    if (time >= site.requests.size()) site.requests.resize(time + 1);
    site.used = std::max(site.used, time + 1);
    Request& request = site.requests[time];
    request.address[static_cast<size_t>(request.lanes++)] = address;
    request.bytes = bytes;
    request.writes = writes;
  }

 private:
  Region* region_of(uintptr_t address) {
    if (last_ < regions_.size() && address >= regions_[last_].begin && address < regions_[last_].end)
      return &regions_[last_];
    for (last_ = 0; last_ < regions_.size(); ++last_) {
      if (address >= regions_[last_].begin && address < regions_[last_].end) return &regions_[last_];
    }
    return nullptr;
  }

  // Instructions are numbered as they come.
  size_t number_of(const void* place) {
    size_t at = reinterpret_cast<uintptr_t>(place) % kPlaces;
    while (places_[at] != place) {
      if (places_[at] == nullptr) {
        places_[at] = place;
        numbers_[at] = known_++;
        if (known_ == kPlaces) std::abort();
        break;
      }
      at = (at + 1) % kPlaces;
    }
    return numbers_[at];
  }

  void end_phase() {
    bool loads = false;
    for (Warp& warp : warps_) {
      for (Site& site : warp.sites) {
        for (size_t k = 0; k < site.used; ++k) {
          Request& request = site.requests[k];
          const uintptr_t first = request.address[0];
          if (first >= shared_begin_ && first < shared_end_) {
            count_shared(request);
          } else {
            count_global(request);
            loads = loads || !request.writes;
          }
          request.lanes = 0;
        }
        site.used = 0;
        site.times = {};
      }
    }
    round_trips_ += loads;
  }

  // Sectors of a request, each once.
  void count_global(const Request& request) {
    Launch& launch = launches_.back();
    ++request_;
    for (int lane = 0; lane < request.lanes; ++lane) {
      const uintptr_t at = request.address[static_cast<size_t>(lane)];
      Region& region = *region_of(at);
      for (uintptr_t s = at / kSector; s <= (at + request.bytes - 1) / kSector; ++s) {
        const size_t k = s - region.begin / kSector;
        if (region.asked[k] == request_) continue;
        region.asked[k] = request_;
        if (request.writes) {
          launch.l2 += kSector;
          launch.dram += region.written[k] ? 0 : kSector;
          region.written[k] = region.seen[k] = 1;
          continue;
        }
        ++loads_;
        distinct_ += region.loaded[k] != block_;
        region.loaded[k] = block_;
        launch.dram += region.seen[k] ? 0 : kSector;
        region.seen[k] = 1;
      }
    }
  }

  // Words of a request, each once: as many wavefronts as the fullest bank has words.
  void count_shared(const Request& request) {
    int all = 0, most = 0;
    std::array<int, kBanks> in_bank{};
    for (int lane = 0; lane < request.lanes; ++lane) {
      const uintptr_t at = request.address[static_cast<size_t>(lane)] - shared_begin_;
      for (uintptr_t word = at / kWord; word <= (at + request.bytes - 1) / kWord; ++word) {
        const size_t bank = word % kBanks;
        auto& words = words_[bank];
        int& count = in_bank[bank];
        if (std::find(words.begin(), words.begin() + count, word) != words.begin() + count) continue;
        words[static_cast<size_t>(count++)] = word;
        most = std::max(most, count);
        ++all;
      }
    }
    Launch& launch = launches_.back();
    launch.shared += most;
    launch.conflict_free += (all + kBanks - 1) / kBanks;
  }

  std::vector<Region> regions_;
  size_t last_ = 0;
  std::vector<Launch> launches_;
  std::vector<Warp> warps_;
  std::array<std::array<uintptr_t, kLanes>, kBanks> words_;
  std::array<const void*, kPlaces> places_{};
  std::array<size_t, kPlaces> numbers_{};
  size_t known_ = 0;
  uintptr_t shared_begin_ = 0, shared_end_ = 0;
  int64_t block_ = 0, request_ = 0;  // of all that there were
  int64_t distinct_ = 0, loads_ = 0, barriers_ = 0, round_trips_ = 0;
  bool counts_ = false;
};

Counter counter;

}  // namespace

void add_memory(const void* data, size_t bytes) { counter.add(data, bytes); }

void begin_call() { cuda::observer = &counter; }

std::vector<Launch> end_call() {
  cuda::observer = nullptr;
  return counter.finish();
}

}  // namespace cvf::traffic

// What the compiler calls, and what it expects of a sanitizer's library besides.
#define CVF_ACCESS(bytes)                                                          \
  void __tsan_read##bytes(void* data) {                                            \
    cvf::traffic::counter.access(__builtin_return_address(0), data, bytes, false); \
  }                                                                                \
  void __tsan_write##bytes(void* data) { cvf::traffic::counter.access(__builtin_return_address(0), data, bytes, true); }

extern "C" {
CVF_ACCESS(1)
CVF_ACCESS(2)
CVF_ACCESS(4)
CVF_ACCESS(8)
CVF_ACCESS(16)
#undef CVF_ACCESS
void __tsan_read_range(void* data, size_t bytes) {
  cvf::traffic::counter.access(__builtin_return_address(0), data, static_cast<uint32_t>(bytes), false);
}
void __tsan_write_range(void* data, size_t bytes) {
  cvf::traffic::counter.access(__builtin_return_address(0), data, static_cast<uint32_t>(bytes), true);
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
unsigned char __tsan_atomic8_load(const volatile unsigned char* data, int) { return *data; }
void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
}
