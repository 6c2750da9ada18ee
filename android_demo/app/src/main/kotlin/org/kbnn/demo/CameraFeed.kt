package org.kbnn.demo

import android.annotation.SuppressLint
import android.content.Context
import android.graphics.ImageFormat
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.hardware.camera2.CaptureRequest
import android.media.Image
import android.media.ImageReader
import android.os.Handler
import android.os.HandlerThread
import android.util.Size
import kotlin.math.abs

/** Upright pictures from the back camera while started; [onPicture] and [onError] are called on the camera's thread. */
class CameraFeed(
    context: Context,
    private val displayDegrees: () -> Int,
    private val onPicture: (Picture) -> Unit,
    private val onError: (String) -> Unit,
) {
    private val manager: CameraManager = checkNotNull(context.getSystemService(CameraManager::class.java))
    private var wanted = false
    private var opening = false
    private var used: String? = null
    private val attempts = Attempts(MOST_ATTEMPTS)
    private var rotation = 0
    private var camera: CameraDevice? = null
    private var reader: ImageReader? = null

    /** Opens the camera again when another app, a call or a failure took it and it is free again. */
    private val available = object : CameraManager.AvailabilityCallback() {
        override fun onCameraAvailable(cameraId: String) {
            if (wanted && cameraId == used && camera == null && !opening && attempts.mayTry()) run(::open)
        }
    }

    /** Needs the camera permission. */
    fun start() = run {
        if (!wanted) manager.registerAvailabilityCallback(available, handler)
        wanted = true
        attempts.reset()
        open()
    }

    fun stop() = run {
        if (wanted) manager.unregisterAvailabilityCallback(available)
        wanted = false
        close()
    }

    private fun run(task: () -> Unit) {
        handler.post {
            try {
                task()
            } catch (error: CameraAccessException) {
                fail("the camera cannot be used (${error.message})")
            } catch (error: SecurityException) {
                fail("the camera may not be used (${error.message})")
            } catch (error: IllegalArgumentException) {
                fail("the camera is gone (${error.message})")
            } catch (error: IllegalStateException) {
                fail("the camera was closed (${error.message})")
            }
        }
    }

    @SuppressLint("MissingPermission")
    private fun open() {
        if (camera != null || opening) return
        val id = backCamera() ?: return fail("this device has no camera")
        used = id
        val traits = manager.getCameraCharacteristics(id)
        val size = nearestSize(traits) ?: return fail("the camera gives no YUV pictures")
        rotation = rotation(traits)
        reader = ImageReader.newInstance(size.width, size.height, ImageFormat.YUV_420_888, 2).also {
            it.setOnImageAvailableListener(::deliver, handler)
        }
        opening = true
        manager.openCamera(id, Opened(), handler)
    }

    private fun backCamera(): String? {
        val ids = manager.cameraIdList
        return ids.firstOrNull { facing(it) == CameraCharacteristics.LENS_FACING_BACK } ?: ids.firstOrNull()
    }

    private fun facing(id: String) = manager.getCameraCharacteristics(id).get(CameraCharacteristics.LENS_FACING)

    private fun nearestSize(traits: CameraCharacteristics): Size? =
        traits.get(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP)
            ?.getOutputSizes(ImageFormat.YUV_420_888)
            ?.minByOrNull { abs(it.width * it.height - WANTED_PIXELS) }

    private fun rotation(traits: CameraCharacteristics): Int {
        val sensor = traits.get(CameraCharacteristics.SENSOR_ORIENTATION) ?: 0
        val front = traits.get(CameraCharacteristics.LENS_FACING) == CameraCharacteristics.LENS_FACING_FRONT
        return uprightRotation(sensor, displayDegrees(), front)
    }

    private inner class Opened : CameraDevice.StateCallback() {
        override fun onOpened(device: CameraDevice) {
            opening = false
            camera = device
            // Stopped while it opened: a camera that stays open is not available to other apps.
            if (wanted) run(::stream) else close()
        }

        override fun onDisconnected(device: CameraDevice) {
            opening = false
            device.close()
            close()
        }

        override fun onError(device: CameraDevice, error: Int) {
            opening = false
            device.close()
            fail("the camera failed (error $error)")
        }
    }

    @Suppress("DEPRECATION") // Its replacement needs API 28.
    private fun stream() {
        val device = camera ?: return
        val surface = reader?.surface ?: return
        val callback = object : CameraCaptureSession.StateCallback() {
            override fun onConfigured(session: CameraCaptureSession) = run {
                if (camera != device) return@run
                val request = device.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW)
                request.addTarget(surface)
                request.set(CaptureRequest.CONTROL_AF_MODE, CaptureRequest.CONTROL_AF_MODE_CONTINUOUS_PICTURE)
                session.setRepeatingRequest(request.build(), null, handler)
            }

            override fun onConfigureFailed(session: CameraCaptureSession) = fail("the camera refused to stream")
        }
        device.createCaptureSession(listOf(surface), callback, handler)
    }

    private fun deliver(source: ImageReader) {
        val image = source.acquireLatestImage() ?: return
        val picture = image.use { if (source === reader) picture(it) else null }
        picture?.let {
            attempts.reset()
            onPicture(it)
        }
    }

    private fun picture(image: Image): Picture {
        val (y, u, v) = image.planes.map { Picture.Plane(it.buffer, it.rowStride, it.pixelStride) }
        return Picture.fromYuv(image.width, image.height, y, u, v).rotated(rotation)
    }

    private fun fail(message: String) {
        close()
        onError(message)
    }

    private fun close() {
        camera?.close()
        camera = null
        // While a camera opens, its reader is kept for `stream`, or for the next `close`.
        if (!opening) {
            reader?.close()
            reader = null
        }
    }

    companion object {
        private const val WANTED_PIXELS = 640 * 480
        private const val MOST_ATTEMPTS = 5

        // One thread for the life of the process, so that a camera that opens late is always closed.
        private val handler by lazy { Handler(HandlerThread("camera").apply { start() }.looper) }
    }
}

/** Counts attempts since the last success, so that a camera that fails at once is not opened without end. */
class Attempts(private val most: Int) {
    private var made = 0

    fun mayTry(): Boolean = made++ < most

    fun reset() {
        made = 0
    }
}

/** Clockwise degrees that turn a sensor's picture upright on a display that is turned by [display] degrees. */
fun uprightRotation(sensor: Int, display: Int, front: Boolean): Int =
    Math.floorMod(if (front) sensor + display else sensor - display, 360)
