// The instruction sets that kernels are compiled for, and which of them this machine has.
#pragma once

namespace cvf {

enum class Isa { kBaseline, kAvx2, kAvx512 };

inline constexpr Isa kAllIsas[] = {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512};

const char* isa_name(Isa isa);

// Compiled into this library, and supported by the processor and the operating system.
bool isa_available(Isa isa);

Isa best_isa();

}  // namespace cvf
