#include "common/isa.h"

namespace cvf {

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    default:
      return "baseline";
  }
}

bool isa_available(Isa isa) {
  switch (isa) {
#ifdef CVF_HAVE_AVX2
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#ifdef CVF_HAVE_AVX512
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
#endif
    default:
      return isa == Isa::kBaseline;
  }
}

Isa best_isa() {
  Isa best = Isa::kBaseline;
  for (const Isa isa : kAllIsas) {
    if (isa_available(isa)) best = isa;
  }
  return best;
}

}  // namespace cvf
