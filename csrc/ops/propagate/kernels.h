// The entries of each instruction set's kernels.
#pragma once

#include "common/kernel_entry.h"
#include "ops/propagate/propagate.h"

namespace cvf::propagate {

CVF_DECLARE_KERNEL(forward, Forward)
CVF_DECLARE_KERNEL(backward, Backward)

}  // namespace cvf::propagate
