/* A double of the GPU driver's library libnvidia-ml.so.1; see README.md beside it.
 *
 * It has the functions that src/stats/gpu.rs calls, and answers with numbers that a test can tell apart:
 * GPU i is i * 10 + 7 percent busy, uses (i + 1) GiB of 80 GiB, is 40 + i degrees warm and draws 100 + i watts. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef int nvmlReturn_t;
typedef struct device *nvmlDevice_t;
typedef struct {
    unsigned int gpu, memory;
} nvmlUtilization_t;
typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, UNKNOWN = 999 };

static const unsigned long long GIB = 1ULL << 30;

static int setting(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text && *text ? atoi(text) : otherwise;
}

/* How often this was asked before; kept where closing and opening the library again does not lose it. */
static int calls(const char *name) {
    int before = setting(name, 0);
    char text[16];
    snprintf(text, sizeof text, "%d", before + 1);
    setenv(name, text, 1);
    return before;
}

static int number_of(nvmlDevice_t device) { return (int)(intptr_t)device - 1; }

static nvmlReturn_t judge(nvmlDevice_t device) {
    return number_of(device) == setting("NVML_DOUBLE_LOST", -1) ? GPU_IS_LOST : SUCCESS;
}

nvmlReturn_t nvmlInit_v2(void) {
    int failures = setting("NVML_DOUBLE_FAIL_INIT", 0);
    return failures > 0 && calls("NVML_DOUBLE_INITS") < failures ? DRIVER_NOT_LOADED : SUCCESS;
}

nvmlReturn_t nvmlShutdown(void) { return SUCCESS; }

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
    int failures = setting("NVML_DOUBLE_FAIL", 0);
    if (failures > 0) {
        int call = calls("NVML_DOUBLE_COUNTS"), first = setting("NVML_DOUBLE_FAIL_FROM", 0);
        if (call >= first && call < first + failures)
            return UNKNOWN;
    }
    *count = (unsigned int)setting("NVML_DOUBLE_GPUS", 1);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    if ((int)index >= setting("NVML_DOUBLE_GPUS", 1))
        return INVALID_ARGUMENT;
    *device = (nvmlDevice_t)(intptr_t)(index + 1);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization) {
    if (judge(device) != SUCCESS)
        return judge(device);
    if (setting("NVML_DOUBLE_NO_UTILIZATION", 0))
        return NOT_SUPPORTED;
    utilization->gpu = (unsigned int)(number_of(device) * 10 + 7);
    utilization->memory = 5;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    if (judge(device) != SUCCESS)
        return judge(device);
    memory->total = 80 * GIB;
    memory->reserved = 0;
    memory->used = (unsigned long long)(number_of(device) + 1) * GIB;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned int *temperature) {
    (void)sensor;
    if (judge(device) != SUCCESS)
        return judge(device);
    *temperature = (unsigned int)(40 + number_of(device));
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts) {
    if (judge(device) != SUCCESS)
        return judge(device);
    *milliwatts = (unsigned int)((100 + number_of(device)) * 1000);
    return SUCCESS;
}
