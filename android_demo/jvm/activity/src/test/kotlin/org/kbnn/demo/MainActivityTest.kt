package org.kbnn.demo

import android.Manifest.permission.CAMERA
import android.app.Activity.RESULT_CANCELED
import android.app.Activity.RESULT_OK
import android.content.Intent
import android.content.pm.PackageManager.PERMISSION_DENIED
import android.net.Uri
import android.os.Looper
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.Spinner
import android.widget.TextView
import java.awt.image.BufferedImage
import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.io.InputStream
import javax.imageio.ImageIO
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNotSame
import org.junit.Assert.assertSame
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import org.robolectric.annotation.Config

/** The activity's life cycle on a simulated Android: permissions, rotation, the background, the gallery. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35])
class MainActivityTest {
    private val used = mutableListOf<String>()
    private lateinit var controller: ActivityController<MainActivity>
    private val activity get() = controller.get()

    @Before
    fun fakeModels() {
        MainActivity.models = { FakeModels() }
        controller = Robolectric.buildActivity(MainActivity::class.java)
    }

    @After
    fun realModels() {
        MainActivity.models = ::ModelStore
    }

    private inner class FakeModels : Models {
        override fun metadata() = Metadata(
            listOf(
                ModelEntry("binary", "binary.tflite", "00", 1000, 0.9, false),
                ModelEntry("float32", "float32.tflite", "11", 9000, 0.0, false),
            ).map { Model(it, listOf("dark", "bright"), InputSpec(1, 1, 1, 1, listOf(128f), listOf(1f))) },
        )

        override fun open(entry: ModelEntry): Classifier {
            synchronized(used) { used += entry.name }
            return object : Classifier {
                override fun classify(tensor: FloatArray) = Inference(floatArrayOf(0f, tensor[0]), 1.5)

                override fun close() = Unit
            }
        }
    }

    @Test
    fun `an app without models says what to do and survives everything`() {
        MainActivity.models = ::ModelStore
        controller.setup()
        assertEquals("no models among the assets: run `kbnn export-android RUN`, then build again", message())
        for (label in listOf("Camera", "Picture")) button(label).performClick()
        controller.pause().stop().restart().start().resume()
        turn()
    }

    @Test
    fun `the camera permission is asked for once and its denial is survived`() {
        controller.setup()
        val first = question()
        assertEquals(listOf(CAMERA), first.requestedPermissions.toList())
        answer(PERMISSION_DENIED)
        assertEquals(MainActivity.DENIED, message())
        controller.pause().resume()
        assertSame(first, question())
        assertEquals(MainActivity.DENIED, message())
    }

    @Test
    fun `the camera button asks again`() {
        controller.setup()
        val first = question()
        answer(PERMISSION_DENIED)
        button("Camera").performClick()
        assertNotSame(first, question())
    }

    @Test
    fun `an interrupted question is asked again`() {
        controller.setup()
        val first = question()
        controller.pause()
        activity.onRequestPermissionsResult(first.requestCode, arrayOf(), intArrayOf())
        controller.resume()
        assertNotSame(first, question())
    }

    @Test
    fun `a device without a camera is reported`() {
        grant()
        controller.setup()
        settle()
        assertEquals("this device has no camera", message())
    }

    @Test
    fun `background and return are survived`() {
        grant()
        controller.setup()
        repeat(3) { controller.pause().stop().restart().start().resume() }
        settle()
        controller.pause().stop().destroy()
        settle()
    }

    @Test
    fun `a turned phone keeps the model and does not ask again`() {
        controller.setup()
        answer(PERMISSION_DENIED)
        models().setSelection(1)
        shadowOf(Looper.getMainLooper()).idle()
        turn()
        assertEquals(1, models().selectedItemPosition)
        assertEquals(MainActivity.DENIED, message())
        await { synchronized(used) { used.last() == "float32" } }
    }

    @Test
    fun `a picture from the gallery is classified and stays after a turn`() {
        controller.setup()
        answer(PERMISSION_DENIED)
        choose { ByteArrayInputStream(picture(0xFFFFFF)) }
        await { message().startsWith("bright  100 %") }
        assertTrue(texts().any { "median 1.50 ms" in it.text && "90.0 % of the MACs binary" in it.text })
        turn()
        shadowOf(activity.contentResolver).registerInputStreamSupplier(URI) { ByteArrayInputStream(picture(0xFFFFFF)) }
        await { message().startsWith("bright  100 %") }
    }

    @Test
    fun `a gallery picture that cannot be read is reported`() {
        controller.setup()
        choose { throw SecurityException("the right to read it ended") }
        await { message() == "the picture cannot be read: the picture may not be read any more, choose it again" }
    }

    @Test
    fun `a return from the gallery without a picture changes nothing`() {
        controller.setup()
        answer(PERMISSION_DENIED)
        button("Picture").performClick()
        val started = shadowOf(activity).nextStartedActivityForResult
        shadowOf(activity).receiveResult(started.intent, RESULT_CANCELED, null)
        assertEquals(MainActivity.DENIED, message())
    }

    private fun grant() = shadowOf(RuntimeEnvironment.getApplication()).grantPermissions(CAMERA)

    private fun question() = shadowOf(activity).lastRequestedPermission

    private fun answer(result: Int) =
        activity.onRequestPermissionsResult(question().requestCode, arrayOf(CAMERA), intArrayOf(result))

    private fun turn() {
        RuntimeEnvironment.setQualifiers("+land")
        controller.recreate()
        shadowOf(Looper.getMainLooper()).idle()
    }

    private fun choose(open: () -> InputStream) {
        shadowOf(activity.contentResolver).registerInputStreamSupplier(URI, open)
        button("Picture").performClick()
        val started = shadowOf(activity).nextStartedActivityForResult
        assertEquals("image/*", started.intent.type)
        shadowOf(activity).receiveResult(started.intent, RESULT_OK, Intent().setData(URI))
    }

    private fun picture(rgb: Int): ByteArray {
        val image = BufferedImage(4, 4, BufferedImage.TYPE_INT_RGB)
        for (k in 0 until 16) image.setRGB(k % 4, k / 4, rgb)
        return ByteArrayOutputStream().also { ImageIO.write(image, "png", it) }.toByteArray()
    }

    private fun message(): String = texts().first { it !is Button }.text.toString()

    private fun texts(): List<TextView> = views().filterIsInstance<TextView>()

    private fun button(label: String): Button = views().filterIsInstance<Button>().first { it.text == label }

    private fun models(): Spinner = views().filterIsInstance<Spinner>().single()

    private fun views(): List<View> = descend(activity.findViewById<ViewGroup>(android.R.id.content)!!)

    private fun descend(view: View): List<View> {
        val children = (0 until ((view as? ViewGroup)?.childCount ?: 0)).map { (view as ViewGroup).getChildAt(it) }
        return children.flatMap { descend(it) } + view
    }

    /** Lets the camera's thread and then the main thread finish their tasks. */
    private fun settle() = repeat(20) {
        Thread.sleep(10)
        shadowOf(Looper.getMainLooper()).idle()
    }

    private fun await(condition: () -> Boolean) {
        val end = System.nanoTime() + 10_000_000_000
        while (!condition()) {
            assertTrue("still: ${message()}", System.nanoTime() < end)
            Thread.sleep(10)
            shadowOf(Looper.getMainLooper()).idle()
        }
    }

    private companion object {
        val URI: Uri = Uri.parse("content://pictures/1")
    }
}
