// The sum over the batch of a divergence, for ops that find it and its gradients in one pass.
#pragma once

#include <cstdint>
#include <memory>

namespace cvf {

// Calls run(arguments), and if `arguments.total` is not null writes sum_b upstream_b value_b there. Where nobody else
// wants the values, they are kept here.
template <class T, template <class> class Arguments, class Run>
void run_with_total(Arguments<T> arguments, Run&& run) {
  std::unique_ptr<T[]> values;
  if (arguments.total != nullptr && arguments.value == nullptr) {
    values = std::make_unique_for_overwrite<T[]>(static_cast<size_t>(arguments.batch));
    arguments.value = values.get();
  }
  run(arguments);
  if (arguments.total == nullptr) return;
  double total = 0;
  for (int64_t b = 0; b < arguments.batch; ++b) {
    total += static_cast<double>(*arguments.upstream[b] * arguments.value[b]);
  }
  *arguments.total = static_cast<T>(total);
}

}  // namespace cvf
