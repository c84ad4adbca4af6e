/* An OpenCL 1.2 host: program from a binary, tasks on an out-of-order queue, events. */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 200, TASKS = 4 };
#define OK(e)                                                                                                \
  do {                                                                                                       \
    cl_int r_ = (e);                                                                                         \
    if (r_) {                                                                                                \
      printf("line %d: %d\n", __LINE__, r_);                                                                 \
      return 1;                                                                                              \
    }                                                                                                        \
  } while (0)

int main(int argc, char **argv) {
  cl_platform_id platform[8], xilinx = NULL;
  cl_uint n = 0;
  cl_device_id device;
  cl_int e, status;
  if (argc < 2) return 2;
  OK(clGetPlatformIDs(8, platform, &n));
  for (cl_uint i = 0; i < n && i < 8; i++) {
    char name[64] = "";
    OK(clGetPlatformInfo(platform[i], CL_PLATFORM_NAME, sizeof name, name, NULL));
    if (!strcmp(name, "Xilinx")) xilinx = platform[i];
  }
  OK(clGetDeviceIDs(xilinx, CL_DEVICE_TYPE_ACCELERATOR, 1, &device, NULL));
  cl_context context = clCreateContext(NULL, 1, &device, NULL, NULL, &e);
  OK(e);
  cl_command_queue queue = clCreateCommandQueue(context, device, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE, &e);
  OK(e);
  FILE *f = fopen(argv[1], "rb");
  if (!f || fseek(f, 0, SEEK_END)) return 1;
  size_t size = (size_t)ftell(f);
  rewind(f);
  unsigned char *image = malloc(size);
  if (!image || fread(image, 1, size, f) != size) return 1;
  fclose(f);
  cl_program program =
      clCreateProgramWithBinary(context, 1, &device, &size, (const unsigned char **)&image, &status, &e);
  OK(e);
  OK(clBuildProgram(program, 1, &device, "", NULL, NULL));
  cl_kernel vadd = clCreateKernel(program, "vadd", &e);
  OK(e);
  int a[N], b[N], c[TASKS][N], wrong = 0;
  for (int i = 0; i < N; i++) a[i] = i * i, b[i] = 5 - i;
  cl_mem ma = clCreateBuffer(context, CL_MEM_READ_ONLY, sizeof a, NULL, &e);
  OK(e);
  cl_mem mb = clCreateBuffer(context, CL_MEM_READ_ONLY, sizeof b, NULL, &e);
  OK(e);
  /* XRT chooses a buffer's memory bank by the argument that it is set for, so arguments come before data. */
  OK(clSetKernelArg(vadd, 0, sizeof ma, &ma));
  OK(clSetKernelArg(vadd, 1, sizeof mb, &mb));
  OK(clEnqueueWriteBuffer(queue, ma, CL_TRUE, 0, sizeof a, a, 0, NULL, NULL));
  OK(clEnqueueWriteBuffer(queue, mb, CL_TRUE, 0, sizeof b, b, 0, NULL, NULL));
  cl_mem mc[TASKS];
  cl_event done[TASKS];
  for (int k = 0; k < TASKS; k++) {
    const int count = N - k;
    mc[k] = clCreateBuffer(context, CL_MEM_READ_WRITE, sizeof c[k], NULL, &e);
    OK(e);
    OK(clSetKernelArg(vadd, 2, sizeof mc[k], &mc[k]));
    OK(clSetKernelArg(vadd, 3, sizeof count, &count));
    OK(clEnqueueTask(queue, vadd, 0, NULL, &done[k]));
  }
  for (int k = TASKS - 1; k >= 0; k--) {
    OK(clEnqueueReadBuffer(queue, mc[k], CL_TRUE, 0, sizeof c[k], c[k], 1, &done[k], NULL));
    for (int i = 0; i < N - k; i++) wrong += c[k][i] != a[i] + b[i];
  }
  OK(clFinish(queue));
  for (int k = 0; k < TASKS; k++) clReleaseEvent(done[k]), clReleaseMemObject(mc[k]);
  clReleaseMemObject(ma), clReleaseMemObject(mb);
  clReleaseKernel(vadd), clReleaseProgram(program), clReleaseCommandQueue(queue), clReleaseContext(context);
  free(image);
  printf("%s\n", wrong ? "host: wrong" : "host: right");
  return wrong != 0;
}
